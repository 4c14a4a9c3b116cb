"""Names of the jobs a child can hold. Names only: importing this imports no torch."""

CONFIGURATION = "stepcost.measure.configuration:Configuration"
INSPECTION = "stepcost.measure.inspection:Inspection"
ENGINE_STEP = "stepcost.measure.engine_step:EngineStep"
PLANTED_STEP = "stepcost.measure.planted:PlantedStep"
LIMITS = "stepcost.measure.limits:Limits"
STUDY = "stepcost.measure.study:Study"
PREDICTION = "stepcost.predict.job:Prediction"
