"""Finds the names of objects in English texts: those of COCO's 80 categories with other words for them, and a user's own.

The lists of words are vlmdata's own. They are not complete, and words have other meanings: "orange" is left out in the
singular, because it is mostly a colour, and phrases such as "train station" are passed over. No grammar is analysed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# name: words that mean the same / words for some of them. `_` is a space. A word may stand at several names.
COCO = """
person: people individual human pedestrian / man woman boy girl child kid baby toddler infant teenager lady guy gentleman
    player skier surfer snowboarder skateboarder cyclist biker rider driver passenger tourist spectator chef cook waiter
    waitress guest bride groom batter pitcher catcher umpire referee farmer worker officer policeman fisherman soldier student
    teacher
bicycle: bike cycle
car: automobile / sedan taxi cab suv hatchback convertible jeep
motorcycle: motorbike bike / scooter moped
airplane: plane aeroplane aircraft / jet airliner biplane
bus: / minibus
train: / locomotive tram
truck: lorry / pickup van
boat: / ship sailboat canoe kayak rowboat ferry yacht dinghy gondola
traffic_light: stoplight traffic_signal
fire_hydrant: hydrant
stop_sign:
parking_meter:
bench: / pew
bird: / pigeon seagull gull duck goose swan parrot eagle sparrow owl hawk crow pelican chicken rooster flamingo ostrich peacock
cat: feline / kitten tabby
dog: canine / puppy pup hound terrier retriever poodle labrador bulldog
horse: / pony foal mare stallion
sheep: / lamb ram ewe
cow: / bull calf cattle ox
elephant:
bear: / bear_cub
zebra:
giraffe:
backpack: rucksack knapsack
umbrella: parasol
handbag: purse
tie: necktie / bow_tie
suitcase: luggage
frisbee: flying_disc
skis:
snowboard:
sports_ball: ball / football baseball basketball soccer_ball tennis_ball volleyball
kite:
baseball_bat:
baseball_glove: catcher's_mitt mitt
skateboard:
surfboard:
tennis_racket: racket racquet tennis_racquet
bottle:
wine_glass: wineglass
cup: / mug teacup
fork:
knife:
spoon:
bowl:
banana:
apple:
sandwich: / hamburger burger panini
orange:
broccoli:
carrot:
hot_dog: hotdog
pizza:
donut: doughnut
cake: / cupcake cheesecake
chair: / armchair stool highchair
couch: sofa settee
potted_plant: houseplant plant
bed:
dining_table: table
toilet:
tv: television monitor tv_set tv_monitor
laptop: notebook_computer
mouse: computer_mouse
remote: remote_control
keyboard:
cell_phone: phone mobile_phone smartphone cellphone
microwave: microwave_oven
oven: / stove
toaster:
sink: washbasin
refrigerator: fridge
book:
clock: / alarm_clock clock_tower
vase:
scissors:
teddy_bear: teddy / stuffed_bear
hair_drier: hair_dryer hairdryer blow_dryer
toothbrush:
"""
# phrases that hold the name of an object and mean something else
OTHER_THINGS = """
train_station train_track railway_track bus_stop bus_station bus_lane bus_shelter car_park horse_carriage toilet_paper
toilet_seat bird_feeder bird_house dog_bed cat_bed dog_house dog_food cat_food bed_of boat_house phone_booth telephone_box
table_tennis table_cloth tablecloth coffee_table side_table keyboard_player book_shelf cup_holder bottle_opener knife_block
human_made
remote_area remote_location cycle_lane bike_lane bike_path plane_tree wine_bottle baseball_player baseball_game baseball_field
baseball_cap baseball_uniform baseball_team baseball_diamond basketball_court football_field football_player apple_tree
apple_pie orange_tree clock_face ball_game ball_player bear_in human_being mp3_player cd_player dvd_player record_player
media_player baby_carrot zebra_crossing bed_and_breakfast horse_riding bird_watching dog_walking cake_decorating
"""
NEVER_ALONE = {"orange", "remote", "cycle", "cook"}  # in the singular mostly a colour, an adjective or a verb
_IRREGULAR = """man/men woman/women person/people people/people child/children mouse/mice goose/geese ox/oxen calf/calves
    knife/knives human/humans"""
UNCHANGED = ("sheep", "cattle", "aircraft", "luggage", "broccoli", "scissors", "skis")
IRREGULAR = {**dict(pair.split("/") for pair in _IRREGULAR.split()), **{word: word for word in UNCHANGED}}
TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
MOST_TOKENS = 4  # words of the longest name that is looked up


class Mention(NamedTuple):
    """A place of a text that names objects: tokens [start, end) name one of `names`.

    `is_whole` is false for a word that means only some of these objects, as "puppy" for dogs.
    """

    start: int
    end: int
    names: frozenset[str]
    is_whole: bool
    is_plural: bool


def plural(word: str) -> str:
    """Return the plural of an English noun, or of the last word of a name."""
    before, _, last = word.rpartition(" ")
    start = f"{before} " if before else ""
    if last in IRREGULAR:
        return start + IRREGULAR[last]
    if last.endswith("man") and len(last) > 4:
        return f"{start}{last[:-3]}men"
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return f"{start}{last}es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return f"{start}{last[:-1]}ies"
    return f"{start}{last}s"


def tokens_of(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case, without the possessive `'s`."""
    return [one.replace("’", "'").removesuffix("'s") for one in TOKEN.findall(text.casefold())]


class ObjectNames:
    """The words for objects. `others` maps further names to other words for each; a name of COCO gets these words too."""

    def __init__(self, others: Mapping[str, Sequence[str]] | None = None) -> None:
        self._forms: dict[str, tuple[frozenset[str], bool, bool]] = {}
        for line in COCO.replace("\n    ", " ").strip().splitlines():
            name, _, words = line.partition(":")
            same, _, narrower = words.partition("/")
            self._add(plain(name), map(plain, [name, *same.split()]), map(plain, narrower.split()))
        for name, synonyms in (others or {}).items():
            self._add(plain(name), map(plain, [name, *synonyms]), ())
        for phrase in OTHER_THINGS.split():
            self._forms.setdefault(plain(phrase), (frozenset(), False, False))
            self._forms.setdefault(plural(plain(phrase)), (frozenset(), False, True))

    def _add(self, name: str, whole: Iterable[str], narrower: Iterable[str]) -> None:
        for words, is_whole in ((whole, True), (narrower, False)):
            for word in words:
                if word not in NEVER_ALONE:
                    self._put(word, name, is_whole, is_plural=plural(word) == word)
                self._put(plural(word), name, is_whole, is_plural=True)

    def _put(self, form: str, name: str, is_whole: bool, *, is_plural: bool) -> None:
        names, was_whole, was_plural = self._forms.get(form, (frozenset(), True, is_plural))
        self._forms[form] = (names | {name}, is_whole and was_whole, is_plural or was_plural)

    def named(self, label: str) -> frozenset[str]:
        """Return the objects that the label of a box names: those of its longest known part, or else the label itself."""
        label = plain(label)
        if label in self._forms:
            return self._forms[label][0] or frozenset({label})
        found = self.mentions(tokens_of(label))
        return max(found, key=lambda one: one.end - one.start).names if found else frozenset({label})

    def all_named(self, label: str) -> frozenset[str]:
        """Return all objects that the label of a box names in any words: several of them, or none that are known.

        Words may be joined, as in PASCAL VOC's "diningtable".
        """
        found = (one.names for one in self.mentions(plain(label).split()))
        return frozenset().union(self._joined.get(plain(label), frozenset()), *found)

    @functools.cached_property
    def _joined(self) -> dict[str, frozenset[str]]:
        return {form.replace(" ", ""): names for form, (names, _, _) in self._forms.items() if " " in form}

    def with_labels(self, labels: Iterable[str]) -> ObjectNames:
        """Return the words for objects with those of labels, such as of a picture's boxes, that are not known."""
        others = ObjectNames.__new__(ObjectNames)
        others._forms = dict(self._forms)
        for label in map(plain, labels):
            for form in (label, plural(label)):
                if form not in self._forms:
                    others._forms[form] = (frozenset({label}), True, form != label)
        return others

    def mentions(self, tokens: Sequence[str]) -> list[Mention]:
        """Return the objects that the tokens name, in order. Of two names at one place, the longer one counts."""
        found: list[Mention] = []
        at = 0
        while at < len(tokens):
            for size in range(min(MOST_TOKENS, len(tokens) - at), 0, -1):
                known = self._forms.get(" ".join(tokens[at : at + size]))
                if known is None:
                    continue
                names, is_whole, is_plural = known
                if names:
                    found.append(Mention(at, at + size, names, is_whole, is_plural))
                at += size - 1
                break
            at += 1
        return found


def plain(name: str) -> str:
    """Return a name as the words of a text are compared: in lower case, with spaces in place of underscores."""
    return " ".join(tokens_of(name.replace("_", " ")))


def coco_names() -> tuple[str, ...]:
    """Return the names of COCO's 80 categories."""
    lines = COCO.replace("\n    ", " ").strip().splitlines()
    return tuple(line.partition(":")[0].replace("_", " ") for line in lines)
