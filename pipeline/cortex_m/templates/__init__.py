"""Template files for `example`; `model_id` and `MODEL_ID` are placeholders for the model's identifier."""
