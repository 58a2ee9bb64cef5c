"""One trial on one device: train, validate, record, checkpoint, score, bundle. No Ray, Optuna or MLflow."""
