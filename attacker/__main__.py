"""`python -m attacker`: the command `attacker`."""

from attacker.cli import main

if __name__ == "__main__":
    main(prog_name="attacker")
