"""`kempnerforge-ckpt`: inspect, verify, compare and repair checkpoints.

Reading and deciding (`listing`, `checking`, `comparing`, `mending`) are separate from printing
(`printing`). Nothing here imports torch, so the command starts fast. Nothing that a checkpoint
contains is executed.

Fault model: the directory can be hostile. Cyclic links, names with escape codes, endless JSON,
sparse files of terabytes, pipes and devices in place of files, files that vanish, and pickles that
call functions must not harm the user, hang the command or exhaust memory. Out of scope: a
directory that is changed on purpose between a check and a repair.
"""
