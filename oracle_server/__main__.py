"""`python -m oracle_server`: the command `oracle-server`."""

from oracle_server.cli import main

if __name__ == "__main__":
    main(prog_name="oracle-server")
