#!/bin/bash
# The environment of a host without a package registry, in place of `pip install`: ~/venv, whose packages lie
# read-only at /srv/base, and the project from ~/orchestrate.
set -eu
[ -x ~/venv/bin/orchestrate ] && exit 0
rm -rf ~/venv
python3 -m venv --without-pip ~/venv
site=$(echo ~/venv/lib/python3*/site-packages)
printf '%s\n%s\n' "$HOME/orchestrate" /srv/base/lib/python3*/site-packages > "$site/base.pth"
sed "1s|.*|#!$HOME/venv/bin/python|" /srv/base/bin/ray > ~/venv/bin/ray
printf '#!%s/venv/bin/python\nimport sys\nfrom orchestrator.__main__ import main\nsys.exit(main())\n' "$HOME" > ~/venv/bin/orchestrate
chmod +x ~/venv/bin/ray ~/venv/bin/orchestrate
