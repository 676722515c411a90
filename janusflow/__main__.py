from janusflow.cli.main import main

main()
