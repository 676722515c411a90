from samplers.benchmark.equal_calls import main

main()
