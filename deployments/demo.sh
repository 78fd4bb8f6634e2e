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

serve_pid=$directory/.serve.pid serve_log=$directory/.serve.log settings=$directory/.settings.yaml
# The demo keeps its journals and Prefect's database to itself.
export MAILARCHIVER_BACKUP_STATE=$directory/.state

# The number may belong to another program by now, or to a zombie.
serves() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -q "mailarchiver-backup serve"; }

end_serve() {
  local pid
  pid=$(cat "$serve_pid" 2>/dev/null) || return 0
  if serves "$pid"; then kill "$pid"; fi
  while serves "$pid"; do sleep 0.2; done
  rm -f "$serve_pid"
}

if [ "$action" = down ]; then
  end_serve
  exec "$python" -m tests.stack.stack down "$directory"
fi

say "An installation with $megabytes MB of mail, in $directory"
"$python" -m tests.stack.stack up "$directory" --megabytes "$megabytes" --project mailarchiver-demo

say "A hot backup: the application keeps running"
"$program" backup hot --directory "$directory" --repository "$directory/backups"

say "The same backup, restored on an isolated staging stack and compared with what it was taken from"
"$program" verify latest --directory "$directory" --repository "$directory/backups"

say "Prefect: server, deployments and a worker"
end_serve
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(umask 077 && cat >"$settings" <<END
installations:
  demo:
    directory: "$directory"
    repository: "$directory/backups"
END
)
setsid --fork "$program" serve --settings "$settings" --port "$port" </dev/null >"$serve_log" 2>&1
for _ in $(seq 240); do
  pid=$(pgrep -f "mailarchiver-backup serve --settings $settings --port $port" | head -n 1) && echo "$pid" >"$serve_pid"
  if grep -q '^ready: ' "$serve_log"; then break; fi
  sleep 0.5
done
grep '^ready: ' "$serve_log" || { cat "$serve_log" >&2; exit 1; }

say "Done"
ls -l "$directory/backups"
cat <<END
The application (a stand-in where no registry has the real one): $("$python" -c "
import sys
from pathlib import Path
from tests.stack.stack import open_stack
print(open_stack(Path(sys.argv[1])).app_url)" "$directory")
Its backups: $directory/backups
Prefect's UI, with every flow as a deployment: http://127.0.0.1:$port
Take it all away again: deployments/demo.sh --down $directory
END
