#!/usr/bin/env bash
# Show the whole thing on an installation made for it: mail goes in, is backed up, and the backup is restored and compared.
#
#   deployments/demo.sh [DIRECTORY] [--megabytes N]
#   deployments/demo.sh --down [DIRECTORY]
#
# DIRECTORY is ./demo unless given. Prepares the machine first and says what it installs. Nothing but the demo's own project,
# "mailarchiver-demo", is touched; `--down` removes it, its backups and its directory.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory=$PWD/demo megabytes=50 action=up
while [ $# -gt 0 ]; do
  case $1 in
    --down) action=down ;;
    --megabytes)
      megabytes=${2:?--megabytes wants a number}
      shift
      ;;
    -*)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
      exit 2
      ;;
    /*) directory=$1 ;;
    *) directory=$here/$1 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*"; }

tests/stack/machine.sh
python=.venv/bin/python program=.venv/bin/mailarchiver-backup

if [ "$action" = down ]; then
  exec "$python" -m tests.stack.stack down "$directory"
fi

say "An installation with $megabytes MB of mail, in $directory"
"$python" -m tests.stack.stack up "$directory" --megabytes "$megabytes" --project mailarchiver-demo

say "A hot backup: the application keeps running"
"$program" backup hot --directory "$directory" --repository "$directory/backups"

say "The same backup, restored on an isolated staging stack and compared with what it was taken from"
"$program" verify latest --directory "$directory" --repository "$directory/backups"

# The Prefect server with the deployments comes here once it is served from one command.

say "Done"
ls -l "$directory/backups"
cat <<END
The application (a stand-in where no registry has the real one): $("$python" -c "
import sys
from pathlib import Path
from tests.stack.stack import open_stack
print(open_stack(Path(sys.argv[1])).app_url)" "$directory")
Its backups: $directory/backups
Take it all away again: deployments/demo.sh --down $directory
END
