"""Short names of attributes in the order of each benchmark's files. Data only."""

from __future__ import annotations

from vltrack.datasets.layout import short_names

OTB_11 = short_names("IV OPR SV OCC DEF MB FM IPR OV BC LR")
LASOT_14 = short_names("IV POC DEF MB CM ROT BC VC SV FOC FM OV LR ARC")
TNL2K_17 = short_names("CM ROT DEF FOC IV OV POC VC SV BC MB ARC LR FM AS TC MS")
UAV123_12 = short_names("SV ARC LR FM FOC POC OV BC IV VC CM SOB")
VASTTRACK_10 = short_names("LR SV FM ARC IV INV DEF ROT BC MB")
