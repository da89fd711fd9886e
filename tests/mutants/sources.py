"""The collection of real bugs that the mutants follow: by number, the categories of each.

Numbers that begin with L are defects of one implementation of the documented API; the others are
from public trackers of other training systems.
"""

from __future__ import annotations

_TABLE = """
L01 half-written
L02 half-written symlink
L03 half-written global-step silent-restart
L05 latest-before-durable retention pp-tp-collision
L06 nfs pp-tp-collision half-written
L07 overwrite-in-place sigterm latest-before-durable
L08 retention async stale-branch
L10 retention
L12 cleanup-race nfs one-rank-fails
L14 cleanup-race half-written
L15 async enospc sigterm
L16 latest-before-durable async
L17 async latest-before-durable
L18 sigterm async not-finalised
L19 sigterm collective-deadlock
L20 sigterm
L21 rng
L23 rng
L24 dataloader world-size
L26 dataloader num-workers
L27 optimizer-state
L28 optimizer-state
L30 overwrite-in-place
L32 frozen param-groups
L34 optimizer-state
L35 fsync half-written
L38 corruption
L40 pickle-security
L41 async
L42 nfs enospc
A01 latest-before-durable retention async
A03 latest-before-durable retention async
A04 latest-before-durable overwrite-in-place half-written
A05 latest-before-durable async
A07 latest-before-durable half-written overwrite-in-place
B01 half-written dataloader
B02 half-written
B05 half-written cleanup-race
B06 half-written silent-restart
B08 half-written multi-component
B11 half-written
B12 half-written retention version-compat
B13 half-written enospc
B14 corruption half-written world-size
C01 retention async
C03 retention multi-component
C04 retention sort
C05 retention
C06 retention
C07 retention stale-branch
C12 retention multi-component
C13 retention async cleanup-race
C14 retention
C15 retention enospc
D03 cleanup-race half-written
D04 cleanup-race
D05 cleanup-race nfs half-written
D06 cleanup-race nfs one-rank-fails
D07 cleanup-race
D09 cleanup-race enospc
E03 async-state-race
E04 async-state-race
E05 async-state-race
E06 async collective-deadlock
E07 async two-saves-overlap collective-deadlock
E08 async collective-deadlock
E09 async exception-swallowed retention
E10 async exception-swallowed not-finalised
E11 async not-finalised retention
E16 async-state-race
E17 async-state-race optimizer-state
F01 pp-tp-collision
F02 pp-tp-collision optimizer-state
F04 pp-tp-collision one-rank-fails optimizer-state
F05 pp-tp-collision global-step
G02 optimizer-state
G05 optimizer-state
G07 optimizer-state version-compat
G08 optimizer-state world-size
G10 optimizer-state lr-scheduler world-size
G11 optimizer-state world-size
G12 optimizer-state lr-scheduler
G13 optimizer-state
H01 frozen param-groups
H03 frozen
I01 rng
I02 rng
I03 rng
I04 rng
I06 rng pickle-security version-compat
I08 rng
J02 dataloader
J03 dataloader epoch
J04 dataloader epoch
J06 dataloader epoch
J07 dataloader rng
J08 dataloader
J10 dataloader epoch
J12 dataloader
J15 dataloader multi-component
J16 dataloader world-size num-workers
J17 global-step dataloader optimizer-state
J18 dataloader epoch
K01 lr-scheduler
K04 grad-scaler
K07 grad-scaler
K08 ema
K09 ema
K10 ema
K11 lr-scheduler exception-swallowed
K13 grad-scaler
M01 one-rank-fails half-written overwrite-in-place
M03 nfs one-rank-fails
M05 nfs overwrite-in-place
M06 nfs world-size
M08 nfs cleanup-race
M09 one-rank-fails nfs
N02 enospc exception-swallowed
N03 corruption
N04 corruption one-rank-fails
O01 sigterm collective-deadlock
O04 sigterm
O05 sigterm half-written
P01 overwrite-in-place half-written
P03 overwrite-in-place
P04 overwrite-in-place half-written
Q02 sort
R01 symlink
R02 symlink
R04 symlink
S01 pickle-security
T01 version-compat optimizer-state
T02 version-compat
U01 silent-restart
W02 world-size optimizer-state
"""

CATEGORIES: dict[str, tuple[str, ...]] = {
    number: tuple(categories)
    for number, *categories in (line.split() for line in _TABLE.strip().splitlines())
}
"""By number."""
