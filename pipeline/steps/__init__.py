"""One module a stage: `run(work)` reads the files of the stages before it and writes its own below `work.out`."""
