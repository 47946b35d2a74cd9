"""Published benchmarks: numbers of sequences, parts of videos, and names where another data set has the same files.

DTB70, TLP and others are laid out as OTB: only the names of the sequences differ.
"""

from __future__ import annotations

from collections.abc import Mapping


def names_of(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


OTB100_NAMES = names_of(
    "Basketball Biker Bird1 Bird2 BlurBody BlurCar1 BlurCar2 BlurCar3 BlurCar4 BlurFace BlurOwl Board Bolt Bolt2 Box "
    "Boy Car1 Car2 Car24 Car4 CarDark CarScale ClifBar Coke Couple Coupon Crossing Crowds Dancer Dancer2 David David2 "
    "David3 Deer Diving Dog Dog1 Doll DragonBaby Dudek FaceOcc1 FaceOcc2 Fish FleetFace Football Football1 Freeman1 "
    "Freeman3 Freeman4 Girl Girl2 Gym Human2 Human3 Human4-2 Human5 Human6 Human7 Human8 Human9 Ironman Jogging-1 "
    "Jogging-2 Jump Jumping KiteSurf Lemming Liquor Man Matrix Mhyang MotorRolling MountainBike Panda RedTeam Rubik "
    "Shaking Singer1 Singer2 Skater Skater2 Skating1 Skating2-1 Skating2-2 Skiing Soccer Subway Surfer Suv Sylvester "
    "Tiger1 Tiger2 Toy Trans Trellis Twinnings Vase Walking Walking2 Woman"
)
DTB70_NAMES = names_of(
    "Animal1 Animal2 Animal3 Animal4 BMX2 BMX3 BMX4 BMX5 Basketball Car2 Car4 Car5 Car6 Car8 ChasingDrones Girl1 "
    "Girl2 Gull1 Gull2 Horse1 Horse2 Kiting ManRunning1 ManRunning2 Motor1 Motor2 MountainBike1 MountainBike5 "
    "MountainBike6 Paragliding3 Paragliding5 RaceCar RaceCar1 RcCar3 RcCar4 RcCar5 RcCar6 RcCar7 RcCar8 RcCar9 SUP2 "
    "SUP4 SUP5 Sheep1 Sheep2 SkateBoarding4 Skiing1 Skiing2 SnowBoarding2 SnowBoarding4 SnowBoarding6 Soccer1 Soccer2 "
    "SpeedCar2 SpeedCar4 StreetBasketball1 StreetBasketball2 StreetBasketball3 Surfing03 Surfing04 Surfing06 "
    "Surfing10 Surfing12 Vaulting Wakeboarding1 Wakeboarding2 Walking Yacht2 Yacht4 Zebra"
)
LASOT_CLASSES = names_of(
    "airplane basketball bear bicycle bird boat book bottle bus car cat cattle chameleon coin crab crocodile cup deer "
    "dog drone electricfan elephant flag fox frog gametarget gecko giraffe goldfish gorilla guitar hand hat helmet "
    "hippo horse kangaroo kite leopard licenseplate lion lizard microphone monkey motorcycle mouse person pig pool "
    "rabbit racing robot rubicCube sepia shark sheep skateboard spider squirrel surfboard swing tank tiger train "
    "truck turtle umbrella volleyball yoyo zebra"
)
LASOT_EXT_CLASSES = names_of(
    "atv badminton cosplay dancingshoe footbag frisbee jianzi lantern misc opossum paddle raccoon rhino skatingshoe "
    "wingsuit"
)

# The authors annotated only a part of these videos. Tiger1 begins at image 6: its boxes come with 349 rows,
# or with 354, of which the first five do not count.
OTB_PARTS = {
    "BlurCar1": "247-988", "BlurCar3": "3-359", "BlurCar4": "18-397", "David": "300-770", "Diving": "1-215",
    "Football1": "1-74", "Freeman3": "1-460", "Freeman4": "1-283", "Tiger1": "6-354",
}  # fmt: skip

# Two targets of one video, and the names of their folders.
OTB_ALIASES = {
    "Human4-2": ("Human4",), "Jogging-1": ("Jogging1", "Jogging"), "Jogging-2": ("Jogging2",),
    "Skating2-1": ("Skating2",), "Skating2-2": ("Skating3",),
}  # fmt: skip

# First and last image of each part of a video that several sequences share: bird1_1, bird1_2, ...
UAV123_PARTS = {
    "bird1": "1-253 775-1477 1573-2437", "car1": "1-751 751-1627 1627-2629",
    "car6": "1-487 487-1807 1807-2953 2953-3925 3925-4861", "car8": "1-1357 1357-2575",
    "car16": "1-415 415-1993", "group1": "1-1333 1333-2515 2515-3925 3925-4873",
    "group2": "1-907 907-1771 1771-2683", "group3": "1-1567 1567-2827 2827-4369 4369-5527",
    "person2": "1-1189 1189-2623", "person4": "1-1501 1501-2743", "person5": "1-877 877-2101",
    "person7": "1-1249 1249-2065", "person8": "1-1075 1075-1525", "person12": "1-601 601-1621",
    "person14": "1-847 847-1813 1813-2923", "person17": "1-1501 1501-2347",
    "person19": "1-1243 1243-2791 2791-4357", "truck4": "1-577 577-1261", "uav1": "1-1555 1555-2377 2473-3469",
}  # fmt: skip

PUBLISHED: Mapping[tuple[str, str], int] = {
    ("lasot", "test"): 280, ("lasot", "train"): 1120, ("lasot_ext", "test"): 150, ("tnl2k", "test"): 700,
    ("tnl2k", "train"): 1300, ("otb99", "test"): 48, ("otb99", "train"): 51, ("otb100", "test"): 100,
    ("dtb70", "test"): 70, ("webuav3m", "test"): 780, ("webuav3m", "val"): 200, ("webuav3m", "train"): 3520,
    ("got10k", "test"): 180, ("got10k", "val"): 180, ("got10k", "train"): 9335, ("trackingnet", "test"): 511,
    ("trackingnet", "train"): 30132, ("uav123", "test"): 123, ("uav123_10fps", "test"): 123, ("nfs", "test"): 100,
    ("vasttrack", "test"): 3500, ("vasttrack", "train"): 47110, ("mgit", "test"): 30, ("mgit", "val"): 15,
    ("mgit", "train"): 105,
}  # fmt: skip
"""Number of sequences of each published split."""


def published(name: str, split: str) -> int:
    """Return the number of sequences of a published split, of all splits together for "all"; 0 if not known."""
    counts = {part: count for (data, part), count in PUBLISHED.items() if data == name}
    return sum(counts.values()) if split == "all" else counts.get(split, 0)
