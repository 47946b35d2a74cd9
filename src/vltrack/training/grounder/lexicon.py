"""Nouns, colors, verbs and places that phrases are made of."""

from __future__ import annotations

SYNONYMS = {
    "person": "person, human, figure, individual",
    "bicycle": "bicycle, bike, cycle, mountain bike, road bike",
    "car": "car, car, car, vehicle, automobile, sedan, suv, jeep, van, taxi, cab, hatchback, sports car, coupe, "
    "minivan, police car, station wagon, convertible, limousine, race car, racing car, mini",
    "motorcycle": "motorcycle, motorbike, scooter, moped, dirt bike, motocross bike, motor scooter",
    "airplane": "airplane, plane, aircraft, jet, airliner, fighter jet, aeroplane, glider",
    "bus": "bus, coach, minibus, school bus, double decker",
    "train": "train, locomotive, tram, subway train, railway engine",
    "truck": "truck, lorry, pickup, pickup truck, van, trailer, fire engine, tanker, dump truck",
    "boat": "boat, ship, motorboat, sailboat, canoe, kayak, ferry, yacht, speedboat, vessel, rowing boat, raft",
    "traffic light": "traffic light, traffic signal, stoplight",
    "fire hydrant": "fire hydrant, hydrant",
    "stop sign": "stop sign, road sign, traffic sign, sign",
    "parking meter": "parking meter",
    "bench": "bench, park bench",
    "bird": "bird, duck, goose, pigeon, seagull, swan, parrot, eagle, crow, chicken, gull, owl, hawk, pelican, "
    "flamingo",
    "cat": "cat, kitten, kitty, tabby",
    "dog": "dog, puppy, hound, terrier, poodle, retriever, bulldog, labrador, husky, sheepdog, shepherd",
    "horse": "horse, pony, stallion, mare, foal, donkey",
    "sheep": "sheep, lamb, ram, goat",
    "cow": "cow, bull, calf, cattle, ox, buffalo",
    "elephant": "elephant",
    "bear": "bear, panda, grizzly, polar bear",
    "zebra": "zebra",
    "giraffe": "giraffe",
    "backpack": "backpack, rucksack, bag, pack",
    "umbrella": "umbrella, parasol",
    "handbag": "handbag, bag, purse, shoulder bag",
    "tie": "tie, necktie",
    "suitcase": "suitcase, luggage, trolley case",
    "frisbee": "frisbee, disc, flying disc",
    "skis": "skis, pair of skis",
    "snowboard": "snowboard, board",
    "sports ball": "ball, sports ball, soccer ball, football, basketball, tennis ball, volleyball, baseball",
    "kite": "kite",
    "baseball bat": "baseball bat, bat",
    "baseball glove": "baseball glove, glove, mitt",
    "skateboard": "skateboard, board, longboard",
    "surfboard": "surfboard, board",
    "tennis racket": "tennis racket, racket, racquet",
    "bottle": "bottle, water bottle, wine bottle, flask, jar",
    "wine glass": "wine glass, glass, goblet",
    "cup": "cup, mug, glass, coffee cup, beaker, tumbler",
    "fork": "fork",
    "knife": "knife, blade",
    "spoon": "spoon",
    "bowl": "bowl, dish, basin",
    "banana": "banana, bunch of bananas",
    "apple": "apple",
    "sandwich": "sandwich, burger",
    "orange": "orange, tangerine, fruit",
    "broccoli": "broccoli, vegetable",
    "carrot": "carrot",
    "hot dog": "hot dog, sausage",
    "pizza": "pizza",
    "donut": "donut, doughnut",
    "cake": "cake, pie, cupcake",
    "chair": "chair, seat, stool, armchair, office chair",
    "couch": "couch, sofa",
    "potted plant": "potted plant, plant, flower pot, house plant",
    "bed": "bed, mattress",
    "dining table": "table, dining table, desk",
    "toilet": "toilet",
    "tv": "tv, television, screen, monitor, display",
    "laptop": "laptop, computer, notebook",
    "mouse": "mouse, computer mouse",
    "remote": "remote, remote control, controller",
    "keyboard": "keyboard",
    "cell phone": "phone, cell phone, mobile phone, smartphone",
    "microwave": "microwave, microwave oven",
    "oven": "oven, stove",
    "toaster": "toaster",
    "sink": "sink, basin",
    "refrigerator": "refrigerator, fridge",
    "book": "book, notebook, magazine",
    "clock": "clock, watch",
    "vase": "vase, pot",
    "scissors": "scissors, pair of scissors",
    "teddy bear": "teddy bear, teddy, plush toy, stuffed animal, bear, toy",
    "hair drier": "hair dryer, hair drier",
    "toothbrush": "toothbrush, brush",
    "raccoon": "raccoon, animal",
    "camel": "camel",
    "goat": "goat",
    "dalmatian": "dalmatian, dog",
    "motorbikes": "motorcycle, motorbike",
}
"""Class -> nouns that name it, the plainest first."""

GROUPS = {
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe raccoon camel goat dalmatian",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "furniture": "chair couch bed dining_table bench",
    "toy": "teddy_bear kite",
    "fruit": "banana apple orange",
    "bag": "backpack handbag suitcase",
}
"""Noun -> classes that it names too."""

PEOPLE = {
    "": "person, person, person, human, pedestrian, figure, player, athlete, runner, jogger, walker, dancer, worker, "
    "passenger, tourist, passer-by, student, child, kid, baby, toddler, teenager, adult, referee, gymnast, sprinter, "
    "swimmer, boxer, wrestler, fighter, singer, speaker, actor, guard, police officer, soldier, waiter, hiker, "
    "climber, customer, shopper, teammate, opponent, hurdler, marathon runner, performer, football player, basketball "
    "player, soccer player, hockey player, goalkeeper, defender, ballerina, cheerleader, contestant, model, trainer, "
    "coach",
    "man": "man, man, man, guy, boy, gentleman, male, fellow, young man, old man",
    "woman": "woman, woman, woman, lady, girl, female, young woman, old woman, girl",
}
"""Gender ("" unknown or either) -> nouns."""

ROLES = {
    "bicycle": "cyclist, biker, rider, bike rider, racer",
    "motorcycle": "rider, biker, motorcyclist, racer, motocross rider",
    "horse": "rider, horseman, jockey",
    "skis": "skier",
    "snowboard": "snowboarder, boarder",
    "skateboard": "skater, skateboarder",
    "surfboard": "surfer, wakeboarder",
    "tennis racket": "tennis player, player",
    "baseball bat": "batter, baseball player, hitter",
    "baseball glove": "catcher, baseball player, fielder",
    "sports ball": "player, soccer player, football player",
    "frisbee": "frisbee player, player",
    "kite": "kite flyer, kite surfer",
    "boat": "rower, sailor, fisherman",
}
"""Class of a thing that a person has -> nouns of that person."""

COLORS = {
    "black": "black, black, dark",
    "white": "white, white, light",
    "gray": "gray, grey, silver, grey",
    "red": "red, red, dark red, crimson",
    "orange": "orange",
    "brown": "brown, brown, tan, beige",
    "yellow": "yellow, yellow, golden",
    "green": "green, green, dark green, olive",
    "blue": "blue, blue, dark blue, light blue, navy",
    "purple": "purple, violet",
    "pink": "pink",
}
"""Color -> adjectives that name it; one listed twice is drawn twice as often."""
CONFUSED = {
    "black": {"gray", "blue", "brown"},
    "white": {"gray", "yellow", "pink"},
    "gray": {"black", "white", "blue", "brown", "green"},
    "red": {"orange", "pink", "brown", "purple"},
    "orange": {"red", "brown", "yellow"},
    "brown": {"orange", "red", "black", "gray", "yellow"},
    "yellow": {"orange", "green", "white", "brown"},
    "green": {"yellow", "blue", "gray"},
    "blue": {"purple", "green", "gray", "black"},
    "purple": {"blue", "pink", "red"},
    "pink": {"red", "purple", "white"},
}
"""Color -> others that the same pixels may be called."""

GARMENTS = {
    "top": "shirt, top, t-shirt, jacket, sweater, jersey, uniform, outfit",
    "t-shirt": "t-shirt, shirt",
    "blouse": "blouse, shirt, top",
    "sweatshirt": "sweatshirt, hoodie, sweater",
    "jumper": "jumper, sweater, pullover",
    "cardigan": "cardigan, sweater",
    "blazer": "blazer, jacket",
    "coat": "coat, jacket",
    "jacket": "jacket, coat",
    "pants": "pants, trousers",
    "jeans": "jeans, pants, trousers",
    "leggings": "leggings, pants",
    "purse": "purse, bag, handbag",
    "bag": "bag, handbag",
    "tie": "tie, necktie",
    "dress": "dress, gown",
    "romper": "romper, dress",
    "pumps": "pumps, shoes",
    "heels": "heels, shoes",
    "sneakers": "sneakers, shoes, trainers",
    "hat": "hat, cap",
}
"""Garment -> nouns that name it, where these are not its own name alone."""
WORN = ("top", "shirt", "t-shirt", "blouse", "sweater", "sweatshirt", "jumper", "cardigan", "blazer", "coat", "jacket",
        "vest", "cape", "hoodie", "dress", "suit", "romper")  # fmt: skip
"""Garments of the upper body, whose color a person's clothes are called by."""
CARRIED = ("bag", "purse", "wallet", "sunglasses", "glasses", "hat", "scarf", "belt", "necklace", "watch", "bracelet")
"""What a person carries or wears that a phrase may name without a color."""
PLURAL = ("pants", "jeans", "leggings", "shorts", "stockings", "tights", "shoes", "boots", "sneakers", "sandals",
          "heels", "pumps", "flats", "loafers", "socks", "gloves", "sunglasses", "glasses", "skis", "scissors",
          "wedges", "trousers", "trainers", "earrings")  # fmt: skip
"""Nouns that take no article."""

TAILS = {
    "person": "walking, running, standing, jogging, dancing, jumping, sitting, waiting, talking, looking around, "
    "turning around, moving, kneeling, bending down, leaning, posing, playing, crouching, smiling, waving, working, "
    "crossing {place}, walking along {place}, walking across {place}, running on {place}, running along {place}, "
    "standing on {place}, standing in {place}, jumping over {thing}, jumping off {thing}, jumping on {thing}, sitting "
    "on {thing}, looking at {thing}, playing with {thing}, walking towards {thing}, pulled by {thing}, in front of "
    "{thing}, behind {thing}, dancing on {place}, riding along {place}, coming down {place}, performing on {place}, "
    "speaking to {thing}, carrying {thing}, pushing {thing}, leaving {place}, entering {place}, who walks away, who "
    "leaves, that is moving, walking alone, leading the race, in the race, ahead of the others, following {thing}, "
    "being chased, on {place}, in {place}",
    "animal": "running, walking, standing, lying down, sleeping, jumping, playing, eating, sitting, sniffing the "
    "ground, moving, running on {place}, walking on {place}, standing in {place}, lying on {thing}, chasing {thing}, "
    "jumping over {thing}, walking along {place}, next to {thing}, in front of {thing}, looking at {thing}, drinking, "
    "grazing on {place}",
    "vehicle": "driving, moving, turning, parked, passing by, driving along {place}, driving on {place}, parked on "
    "{place}, turning around {place}, moving through {place}, coming down {place}, drifting on {place}, in front of "
    "{thing}, passing {thing}, stopping at {place}, crossing {place}, racing on {place}, that drives away, leaving "
    "{place}",
    "air": "flying, in the air, in the sky, hovering, flying over {place}, landing on {place}, gliding, taking off, "
    "falling",
    "water": "sailing, floating, on the water, moving on {place}, driving on {place}, passing {thing}",
    "thing": "lying on {thing}, standing on {thing}, held in a hand, on {place}, on {thing}, moving, rolling, being "
    "moved, in front of {thing}, being held, next to {thing}, behind {thing}, hanging, falling, blown by the wind, "
    "placed on {thing}, carried by {thing}",
}
"""Group -> what may follow the noun without being seen; ``{place}`` and ``{thing}`` are filled in."""
PLACES = ("the street", "the road", "the beach", "the grass", "the field", "the snow", "the water", "the track",
          "the bridge", "the park", "the pavement", "the sidewalk", "the stage", "the floor", "the ground",
          "the highway", "the parking lot", "the court", "the room", "the garden", "the forest", "the mountain road",
          "the lake", "the river", "the sea", "the sand", "the pool", "the stairs", "the path", "the crossing",
          "the square", "the office", "the kitchen", "the hall", "the ice", "the runway", "the roundabout")  # fmt: skip
"""What fills ``{place}``."""
THINGS = ("the wall", "the fence", "the tree", "the trees", "the window", "the door", "the ramp", "the shelf",
          "the rocks", "the building", "the house", "the crowd", "a hand", "the man", "the woman", "the child",
          "the ball", "the bushes", "the pole", "the goal", "the obstacle", "the curtain", "the box", "the statue",
          "the barrier", "the others", "the camera", "the audience", "the shadow")  # fmt: skip
"""What fills ``{thing}`` where it is nothing in the scene."""

GROUP_OF = {"airplane": "air", "bird": "animal", "kite": "air", "boat": "water", "person": "person"}
for _name in GROUPS["animal"].split():
    GROUP_OF.setdefault(_name, "animal")
for _name in GROUPS["vehicle"].split():
    GROUP_OF.setdefault(_name, "vehicle")
"""Class -> group of ``TAILS``; those that are not here are "thing"."""


def nouns_of(name: str) -> list[str]:
    """Nouns that name a class."""
    return SYNONYMS.get(name, name).split(", ")
