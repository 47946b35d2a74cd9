"""Turn the report of `pip install --report` into lines of a constraints file: name, version, sha256 of the file."""

import json
import sys
import sysconfig

python = ".".join(map(str, sys.version_info[:2]))
sys.stdout.write(f"# Made by `make lock` for Python {python}, {sysconfig.get_platform()}.\n")
for entry in sorted(json.load(sys.stdin)["install"], key=lambda one: one["metadata"]["name"].lower()):
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    if name == "vltrack":
        continue
    digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
    sys.stdout.write(f"{name}=={version} --hash=sha256:{digest}\n")
