"""Names of the jobs a child can hold. Names only: importing this imports no torch."""

CONFIGURATION = "stepcost.measuring.configuration:Configuration"
INSPECTION = "stepcost.measuring.inspection:Inspection"
ENGINE_STEP = "stepcost.measuring.engine_step:EngineStep"
PLANTED_STEP = "stepcost.measuring.planted:PlantedStep"
LIMITS = "stepcost.measuring.limits:Limits"
STUDY = "stepcost.measuring.study:Study"
PREDICTION = "stepcost.predicting.job:Prediction"
