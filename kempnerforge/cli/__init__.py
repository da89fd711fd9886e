"""`kempnerforge-ckpt`: look at checkpoints, verify and compare them, mend a directory of them.

Reading and deciding (`listing`, `checking`, `comparing`, `mending`) is apart from printing
(`printing`). Nothing here imports torch, so the command answers at once, and nothing that a
checkpoint contains is run.

Fault model: the directory may be hostile. Links in circles, names that hold escape codes, JSON
without end, sparse files of terabytes, pipes and devices in place of files, files that vanish, and
pickles that call functions must neither harm, hang nor exhaust the one who looks. Out of scope: a
directory that is changed on purpose between a check and a repair.
"""
