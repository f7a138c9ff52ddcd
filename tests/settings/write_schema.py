"""Write docs/reference/settings.schema.json from the settings tree."""

import json

from beamline_ml.settings import Settings
from tests.settings.test_settings import SCHEMA

SCHEMA.write_text(json.dumps(Settings.model_json_schema(), indent=2) + "\n")
