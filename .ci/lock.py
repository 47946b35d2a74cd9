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
    public, _, local = version.partition("+")  # a local build, such as torch for the CPU alone: another file elsewhere
    digest = entry["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    sys.stdout.write(f"{name}=={public}" + (f" --hash=sha256:{digest}" if digest and not local else "") + "\n")
