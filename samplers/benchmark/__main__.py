from samplers.benchmark.run import main

main()
