"""Words of directions, colours, places and numbers are found in many languages, and not in other words."""

import pytest

from vlmdata.text.scene_words import QUOTED, has_coordinates, words_against

# The names in Unicode CLDR 47 of the arrows to the left, right, up and down, and of the red, green, blue and white circles.
NAMES = {
    "en": ("left arrow, right arrow, up arrow, down arrow", "red circle, green circle, blue circle, white circle"),
    "de": (
        "Pfeil nach links, Pfeil nach rechts, Pfeil nach oben, Pfeil nach unten",
        "roter Punkt, grüner Punkt, blauer Punkt, weißer Punkt",
    ),
    "fr": (
        "flèche gauche, flèche droite, flèche haut, flèche bas",
        "disque rouge, disque vert, disque bleu, disque blanc",
    ),
    "es": (
        "flecha hacia la izquierda, flecha hacia la derecha, flecha hacia arriba, flecha hacia abajo",
        "círculo rojo, círculo verde, círculo azul, círculo blanco",
    ),
    "it": (
        "freccia rivolta a sinistra, freccia rivolta verso destra, freccia rivolta verso l’alto, "
        "freccia rivolta verso il basso",
        "cerchio rosso, cerchio verde, cerchio blu, cerchio bianco",
    ),
    "pt": (
        "seta para a esquerda, seta para a direita, seta para cima, seta para baixo",
        "círculo vermelho, círculo verde, círculo azul, círculo branco",
    ),
    "nl": (
        "pijl naar links, pijl naar rechts, pijl omhoog, pijl omlaag",
        "rode cirkel, groene cirkel, blauwe cirkel, witte cirkel",
    ),
    "sv": ("vänsterpil, högerpil, uppåtpil, nedåtpil", "röd cirkel, grön cirkel, blå cirkel, vit cirkel"),
    "pl": (
        "strzałka w lewo, strzałka w prawo, strzałka w górę, strzałka w dół",
        "czerwone koło, zielone koło, niebieskie koło, białe koło",
    ),
    "ru": (
        "стрелка влево, стрелка вправо, стрелка вверх, стрелка вниз",
        "красный круг, зеленый круг, голубой круг, белый круг",
    ),
    "uk": (
        "стрілка вліво, стрілка вправо, стрілка вгору, стрілка вниз",
        "червоний круг, зелений круг, cиній круг, білий круг",
    ),
    "tr": ("sol ok, sağ ok, yukarı ok, aşağı ok", "kırmızı daire, yeşil daire, mavi daire, beyaz daire"),
    "id": (
        "tanda panah kiri, tanda panah kanan, tanda panah atas, tanda panah bawah",
        "lingkaran merah, lingkaran hijau, lingkaran biru, lingkaran putih",
    ),
    "vi": (
        "mũi tên trái, mũi tên phải, mũi tên lên, mũi tên xuống",
        "hình tròn màu đỏ, hình tròn màu xanh lá cây, hình tròn màu lam, hình tròn màu trắng",
    ),
    "ar": ("سهم لليسار, سهم لليمين, سهم لأعلى, سهم لأسفل", "دائرة حمراء, دائرة خضراء, دائرة زرقاء, دائرة بيضاء"),
    "he": ("חץ שמאלה, חץ ימינה, חץ למעלה, חץ למטה", "עיגול אדום, עיגול ירוק, עיגול כחול, עיגול לבן"),
    "hi": ("बायाँ तीर, दायाँ तीर, ऊपर तीर, नीचे तीर", "लाल वृत्त, हरा वृत्त, नीला वृत्त, सफ़ेद वृत्त"),
    "zh": ("向左箭头, 向右箭头, 向上箭头, 向下箭头", "红色圆, 绿色圆, 蓝色圆, 白色圆"),
    "ja": ("左矢印, 右矢印, 上矢印, 下矢印", "赤い丸, 緑の丸, 青い丸, 白い丸"),
    "ko": ("왼쪽 화살표, 오른쪽 화살표, 위쪽 화살표, 아래쪽 화살표", "빨간 원, 녹색 원, 파란 원, 흰색 원"),
}  # fmt: skip


@pytest.mark.parametrize("language", NAMES)
def test_the_arrows_and_circles_of_unicode_are_found_in_each_language(language: str) -> None:
    arrows, circles = (names.split(", ") for names in NAMES[language])
    left, right, up, down = arrows
    for name in (left, right):
        assert {"flip", "turn", "crop"} <= words_against([name]).keys(), name
    for name in (up, down):
        assert "turn" in words_against([name]), name
    for name in circles:
        assert "colour" in words_against([name]), name


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("A dog sleeps on a sofa.", {}),
        ("The dog is to the LEFT of the sofa.", {"flip": "left", "turn": "left", "crop": "left"}),
        ("A left-handed player", {"flip": "left", "turn": "left", "crop": "left"}),
        ("It turns clockwise", {"flip": "clockwise", "turn": "clockwise", "crop": "clockwise"}),
        ("the eastern coast", {"flip": "eastern", "turn": "eastern", "crop": "eastern"}),
        ("A cat under a table", {"turn": "under"}),
        ("A tree in the background", {"crop": "background"}),
        ("Two cats", {"crop": "two"}),
        ("The reddish sky", {"colour": "reddish"}),
        ('A sign that says "STOP"', {"flip": QUOTED, "turn": QUOTED}),
        ("Ein Schild „Halt“", {"flip": QUOTED, "turn": QUOTED}),
        ("Leftovers, brightness, credit, upset, whitewash, greenhouse", {}),
        ("more morning sold basket plate nest rest mode be est", {}),
        ("3 dogs", {"crop": "3"}),
        ("in 2019, at 3.5 km", {}),
        ("vers l'est", {"flip": "l'est", "turn": "l'est", "crop": "l'est"}),
        ("", {}),
    ],
)
def test_words_forbid_what_they_would_make_wrong(text: str, rules: dict[str, str]) -> None:
    assert words_against(["nothing", text]) == rules


# Inflected and joined forms, other spellings, and words of children and of sailors.
FORMS = {
    "flip": (
        "lefty, starboard, rechtsseitig, Linkskurve, le gaucher, zurdo, mancino, canhoto, "
        "linksboven, rechterkant, vänstersida, "
        "högerhand, lewego, prawymi, leworęczny, левыми, левосторонний, на западе, "
        "по часовой стрелке, лівому, правою, "
        "sağındakiler, solumuzda, soldakiler, doğusunda, kirinya, phía tây, 西边, ひだり, みぎ, "
        "좌회전, اليد اليسرى, الأيمن, يُسرى, "
        "הימנית, ימני, बायें, दाहिनी"
    ),
    "turn": (
        "atop, hinunter, supérieure, inferiores, superiori, debaixo, bovenkant, övre, upptill, "
        "górna, powyżej, верхнем, ниже, "
        "вище, üstteki, altındaki, yukarıdaki, bawahnya, 顶部, うえ, 밑에, السفلي, העליון, निचला"
    ),
    "colour": (
        "copper, silvery, WEISS, dunkelrot, hellgrün, schwarzweiß, rothaarig, bläulich, rougeâtre, "
        "multicolore, rojiza, azulado, "
        "rossastro, turchese, azuis, avermelhado, donkerblauw, zwartwit, mörkblå, svartvit, "
        "czerwoni, złoty, granatowy, оранжевом, "
        "красноватый, бирюзовый, синього, срібний, KIRMIZI, SARI, maviler, morlu, kemerahan, "
        "jingga, bạc, 金色, あおい, グレー, 까만, "
        "붉은, ذهبي, ملون, לבנים, זהב, रंगीन"
    ),
    "crop": "3 dogs, a pair of shoes, a couple of cats, dozens of birds, twins, twenty",
}


@pytest.mark.parametrize("rule", FORMS)
def test_inflected_and_joined_words_are_found(rule: str) -> None:
    assert [form for form in FORMS[rule].split(", ") if rule not in words_against([form])] == []


@pytest.mark.parametrize(
    "text",
    [
        "the dog [0.125, 0.250, 0.500, 0.750]", "(12,30),(200,310)", "<loc0010><loc0020><loc0500><loc0600> cat",
        "<|box_start|>(1,2),(3,4)<|box_end|>", '{"bbox_2d": [1, 2, 3, 4]}', "<box>[[1, 2, 3, 4]]</box>", '<point x="1" y="2">',
        "[12,34, 56 ,78]",
    ],
)  # fmt: skip
def test_coordinates_are_found(text: str) -> None:
    assert has_coordinates(text)


@pytest.mark.parametrize("text", ["in 2019, 2020, 2021", "f(x, y)", "(1, 2)", "[1]", "a box of apples", "[a, b, c, d]"])
def test_other_numbers_are_no_coordinates(text: str) -> None:
    assert not has_coordinates(text)
