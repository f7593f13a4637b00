"""What `launch.py --job` does, a file a job: each puts parts of the other packages together and knows no parser.

`run(launch, config, workdir, stop)` is a job: the launch arguments, the config, the run's directory, and whom to ask
whether to leave. `igrpo_jax`, `models` and `sharding` do not know each other; jobs know all of them.
"""
