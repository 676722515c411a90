from janusflow.cli import main

main()
