"""Export of the student to what runs on robots. Needs torch and onnx: `pip install 'sam2lite[export]'`."""
