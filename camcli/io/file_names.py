"""The names of the files that an evaluation and a comparison write."""

IMAGE_SCORES_FILE = "images.jsonl"
SCORE_LOG_FILE = "scores.jsonl"
GALLERY_FOLDER = "gallery"  # of `--gallery all`
REPORT_FILE, METRICS_FILE, PROBLEMS_FILE = "localization.json", "localization.csv", "problems.csv"
FAITHFULNESS_FILE, FAITHFULNESS_CSV = "faithfulness.json", "faithfulness.csv"
COMPARISON_FILE = "compare.jsonl"
