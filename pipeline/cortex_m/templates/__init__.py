"""Files to be written beside a model, in which `model_id` and `MODEL_ID` stand for its identifier (`example`)."""
