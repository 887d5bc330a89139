"""Words that an augmentation of the picture would make wrong: directions, colours, places in the scene, and numbers of things.

The lists begin with the names that Unicode CLDR 47 gives to the arrows, the coloured circles and the coloured hearts in 20
languages (annotations of unicode-org/cldr-json, Unicode licence). Inflected forms, adverbs, compass points, colours of hair and
metal, places and numbers are added. All languages are searched in every text, because a word of another language that is
spelt in the same way only costs an operation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

# What a text speaks of. flip: left and right, which a horizontal flip exchanges. turn: above and below. colour: a colour.
# crop: a place in the whole scene, or a number of things.
RULES = ("flip", "turn", "colour", "crop")
QUOTED = "quoted words"  # a text that quotes words usually quotes what can be read in the picture
COORDINATES = "coordinates"


def _forms(stems: str, endings: str) -> str:
    """Return each stem with each ending; `-` is the empty ending."""
    return " ".join(stem + ending.strip("-") for stem in stems.split() for ending in endings.split())


_GERMAN, _FRENCH, _SPANISH, _ITALIAN = "- e er es en em", "- e s es", "o a os as", "o a i e"
_POLISH, _RUSSIAN = "y a e ego ej emu ym ą ych ymi", "ый ая ое ые ого ой ому ым ую ых ыми"
_UKRAINIAN = "ий а е і ого ої ому ій им у их ими"

_SIDES = (
    "left right leftmost rightmost lefthand righthand leftward leftwards rightward rightwards clockwise "
    "anticlockwise "
    "counterclockwise counter_clockwise east west eastern western eastward westward eastbound westbound "
    "northeast northwest "
    "southeast southwest "
    + _forms("link recht östlich westlich", _GERMAN)
    + " links rechts linkerhand rechterhand osten westen linksherum rechtsherum uhrzeigersinn linkspfeil rechtspfeil "
    "gauche gauches droite droites droit ouest horaire antihoraire aiguilles "
    "izquierda izquierdo izquierdas izquierdos derecha derecho derechas derechos oeste horario antihorario "
    "sinistra sinistro sinistre sinistri destra destro destre destri ovest orario antiorario "
    "esquerda esquerdo esquerdas esquerdos direita direito direitas direitos leste horário horario "
    "linker rechter linkse rechtse linksom rechtsom oost oosten "
    "vänster vänstra höger högra vänsterpil högerpil medurs moturs öster väster "
    "lewo prawo lewej prawej lewy prawy lewa prawa lewe prawe lewym prawym lewą prawą wschód zachód wskazówek "
    "влево вправо слева справа налево направо левый правый левая правая левое правое левой правой левом "
    "правом левую правую "
    "левее правее левого правого запад восток западный восточный "
    "вліво вправо ліворуч праворуч зліва справа лівий правий ліва права лівої правої лівій правій "
    "західний східний "
    "sol sağ solda sağda solunda sağında sola sağa soldaki sağdaki soldan sağdan solundaki sağındaki batı "
    "doğu saat "
    "kiri kanan barat timur trái phải "
)
_HEIGHTS = (
    "above below top bottom up down upside upper lower uppermost topmost upward upwards downward "
    "downwards upright overhead "
    "beneath underneath under over north south northern southern tilted tilting leaning vertical "
    "horizontal diagonal "
    "vertically horizontally diagonally "
    + _forms("ober unter nördlich südlich senkrecht waagerecht", _GERMAN)
    + " oben unten über darüber darunter oberhalb unterhalb aufwärts abwärts norden süden "
    "haut bas dessus dessous sous sur hauts nord sud vertical horizontal "
    "arriba abajo encima debajo sobre superior inferior norte sur "
    "alto basso su giù sopra sotto superiore inferiore "
    "cima baixo acima abaixo embaixo sul "
    "omhoog omlaag boven onder bovenste onderste noord zuid "
    "upp ned uppåt nedåt ovanför nedanför över uppåtpil nedåtpil norr söder "
    "góra górę góry górze dół dole dołu nad pod północ południe "
    "вверх вниз вверху внизу сверху снизу над под верхний нижний верхней нижней север юг "
    "вгору вгорі знизу згори зверху "
    "yukarı aşağı yukarıda aşağıda üst alt üstte altta üstünde altında kuzey güney "
    "atas bawah utara selatan lên xuống trên dưới "
)
_COLOURS = (
    "black white red green yellow blue brown purple pink orange grey gray violet turquoise beige golden "
    "gold silver blond "
    "blonde brunette tan teal maroon navy crimson scarlet magenta cyan lavender colour colours color "
    "colors coloured colored "
    "colourful colorful multicolored multicoloured monochrome sepia grayscale greyscale reddish greenish "
    "bluish yellowish "
    "brownish whitish blackish greyish grayish redhead "
    + _forms(
        "rot grün gelb blau braun schwarz weiß grau orang orange violett pink hellblau dunkelblau bunt farbig golden", _GERMAN
    )
    + " lila rosa farbe farben pinkes "
    + _forms("noir blanc vert bleu gris brun violet coloré doré", _FRENCH)
    + " blanche blanches rouge rouges jaune jaunes marron rose roses violette violettes couleur couleurs argenté "
    + _forms("roj amarill negr blanc morad dorad", _SPANISH)
    + " naranja naranjas verde verdes azul azules marrón marrones rosa rosas gris grises color colores plateado "
    + _forms("ross giall ner bianc grigi azzurr dorat", _ITALIAN)
    + " bianche bianchi grigie arancione arancioni verdi blu viola marroni colore colori "
    + _forms("vermelh amarel rox pret branc cinzent dourad castanh", _SPANISH)
    + " laranja marrom cinza cor cores preto "
    "rood rode oranje geel gele groen groene blauw blauwe paars paarse bruin bruine zwart zwarte wit "
    "witte roze grijs grijze "
    "lichtblauw kleur kleuren "
    "röd rött röda orange gul gult gula grön grönt gröna blå blått lila brun brunt bruna svart svarta vit "
    "vitt vita rosa grå "
    "grått ljusblått färg färger "
    + _forms("czerwon pomarańczow żółt zielon niebiesk fioletow brązow czarn biał różow szar jasnoniebiesk", _POLISH)
    + " niebieski niebieskie niebieskiego niebieskim jasnoniebieskie kolor kolory "
    + _forms("красн оранжев желт жёлт зелен зелён бел черн чёрн коричнев фиолетов розов сер золот", _RUSSIAN)
    + " синий синяя синее синие синего синей синим голубой голубая голубое голубые голубого цвет цвета розовое серое "
    + _forms("червон оранжев жовт зелен фіолетов коричнев чорн біл рожев сір блакитн", _UKRAINIAN)
    + " синій синя синє сині cиній колір кольору "
    "kırmızı turuncu sarı yeşil mavi mor kahverengi siyah beyaz pembe gri renk renkli "
    "merah oranye kuning hijau biru ungu cokelat coklat hitam putih abu warna "
    "đỏ cam vàng xanh lam tím nâu đen trắng hồng xám màu "
)
_PLACES = (
    "corner corners middle centre center centred centered central background foreground edge edges border "
    "margin frame whole "
    "entire half side sides "
    "two three four five six seven eight nine ten eleven twelve dozen both many several count number total "
    "ecke ecken mitte zentrum hintergrund vordergrund rand zwei drei vier fünf sechs sieben acht neun "
    "zehn elf zwölf beide "
    "viele wieviele anzahl seite "
    "milieu arrière avant bord côté deux trois quatre cinq sept huit neuf dix combien plusieurs nombre "
    "esquina centro fondo borde medio lado dos tres cuatro cinco seis siete ocho nueve diez cuántos "
    "cuántas varios número "
    "angolo sfondo primo bordo mezzo lato tre quattro cinque sei sette otto nove dieci quanti quante "
    "canto fundo meio borda dois duas três quatro sete oito dez quantos quantas "
    "hoek midden achtergrond voorgrond rand kant twee drie vier vijf zes zeven acht negen tien hoeveel "
    "hörn mitten bakgrund förgrund kant två tre fyra fem sex sju åtta nio tio antal många "
    "róg rogu środku tle krawędź dwa dwie trzy cztery pięć ile "
    "угол углу центре фоне середине край два две три четыре пять сколько кут куті центрі тлі дві чотири "
    "скільки "
    "köşe köşesinde orta ortasında arka ön kenar iki üç dört beş kaç "
    "sudut tengah latar dua tiga empat lima berapa góc giữa nền hai ba bốn năm "
)
# Words of scripts without spaces, or with prefixes and vowel signs, which are found anywhere in a text.
_ANYWHERE = {
    "flip": (
        "左 右 顺时针 逆时针 順時針 逆時針 時計回り 왼 오른 좌측 우측 좌향 우향 좌우 서쪽 동쪽 시계 يسار "
        "يمين شرق غرب عقارب बायाँ बायां बाएँ बाएं बाईं दायाँ दायां दाएँ दाएं दाईं घड़ी पूर्व पश्चिम שמאל "
        "ימין ימינה שעון"
        " 東 西边 東 東側 西に ひだり みぎ 西 东 좌회 우회 يسر أيسر أيمن يمن شرق ימנ מזרח מערב बायें दायें बाय दाय "
        "दाहिन बाई वामावर्त दक्षिणावर्त"
    ),
    "turn": (
        "上 下 向上 向下 위쪽 아래 위에 상향 하향 위아래 북쪽 남쪽 أعلى أسفل فوق تحت شمال جنوب ऊपर नीचे "
        "उर्ध्व למעלה למטה מעל מתחת"
        " 頂 顶 底 うえ した 위 밑 꼭대기 상단 하단 سفل علو عليا עליו תחתו בראש निचल उपर निचले तले ऊपरी"
    ),
    "colour": (
        "红 紅 橙 黄 黃 绿 綠 緑 蓝 藍 青 紫 棕 褐 黑 黒 白 灰 粉 茶色 赤 オレンジ ピンク 彩 颜色 顏色 "
        "빨간 빨강 오렌지색 주황 노란 노랑 녹색 초록 파란 파랑 보라 갈색 검은 검정 흰색 하얀 흰 분홍 "
        "회색 색깔 أحمر حمراء برتقال أصفر صفراء أخضر خضراء أزرق زرقاء بنفسج بني أسود سوداء أبيض بيضاء "
        "وردي رماد लाल नारंगी पीला पीली पीले हरा हरी हरे नीला नीली नीले बैंगनी भूरा भूरी भूरे काला काली "
        "काले सफ़ेद सफेद गुलाबी स्लेटी אדום כתום צהוב ירוק כחול סגול חום שחור לבן ורוד אפור תכלת"
        " 金 银 銀 米色 橘 咖啡色 栗色 色 カラ ベージュ みどり あお しろ くろ あか ブルー レッド グリーン "
        "グレー ブラ ホワイト 까만 까맣 색 빨갛 붉 푸른 푸르 하늘 "
        "연두 남색 베이지 핑크 블루 알록 파랗 흰 하얗 노랗 ذهب فض ملون لون ألوان بيض سود حمر حمرا زرق خضر صفر אדו אדומ "
        "לבנ כתומ חומ זהב כסף צבע בז' चांदी रंग धूसर आसमान ग्रे सुनहर"
    ),
    "crop": (
        "中间 中間 中央 中心 背景 前景 角落 边缘 邊緣 真ん中 隅 两 兩 三 四 五 六 七 八 九 十 几 多少 幾 "
        "二つ 구석 가운데 배경 전경 زاوية وسط خلفية مقدمة اثنان ثلاث أربع خمس كم कोने बीच पृष्ठभूमि दो "
        "तीन चार पाँच कितने פינה מרכז רקע כמה"
        " 双 雙 对 一对 两个"
    ),
}

# Further whole words. Beginnings would be too short: `mor`, Turkish for purple, also begins `morning`.
_FURTHER = {
    "flip": "leftside rightside lefty lefties starboard tây đông "
    + _forms("sol", "u un um a unda undaki umda umuz unuz umuzda unuzda dakiler undakiler ak undan una ların lar"),
    "turn": (
        "high higher highest low lowest atop sideways underside uphill downhill upstairs downstairs hoch "
        "drunter drüber haute "
        "hautes basse basses bajo bajos baja bajas alta altas altos alte bassa bassi basse alti sob baixa "
        "baixos baixas debaixo "
        "boven ovan ovanpå längst uppe nere nedre kopf övre 위 밑 うえ した 顶部 底部 "
    ),
    "colour": (
        "blueish bluegreen gingery ginger copper bronze ivory amber indigo burgundy khaki lilac mauve olive "
        "fuchsia auburn "
        "charcoal peach rose rosy emerald ruby sapphire rainbow rust rusty coral lime mustard colorless "
        "colourless greener "
        "greenest whiter yellowed yellowing silvery pinkish orangey hue hues shade shades discolored "
        "discoloured uncolored "
        "darker lighter pale café marrone colorato colorata colorati azuis orangea plateado "
        "plateada plateados plateadas goud guld bieli bej bạc lilás bege "
    )
    + _forms("roux rousse rosé rosad pardo castañ castan roja", "- s o a os as")
    + " "
    + _forms("mor", "lu mu un lar dan a ları lular"),
    "crop": (
        "pair pairs couple couples twins trio dozens hundreds hundred thirteen fourteen fifteen sixteen "
        "seventeen eighteen "
        "nineteen twenty thirty forty fifty "
    ),
}
# Beginnings of words, for languages that inflect and join words, as they are after `_folded`.
_BEGINS = {
    "flip": (
        "gauch zurd diestr siniestr mancin canhot links rechts linker rechter vänster höger västr östr väster "
        "öster lewą lewo "
        "lewe lewy lewi lewa prawo prawą prawe prawy prawa prawi zachodn wschodn wschód wschod запад восто "
        "вост западн захід "
        "захід заход схід сход лев лів прав часов kirin kanann sağ bati doğu occident orient"
    ),
    "turn": (
        "hinauf hinunter herunter kopfüber obers oberh unters unterh supérieur inférieur superior inferior "
        "boven onder överst "
        "underst upptil nedtil neder högst ovanf powyż poniż górn doln верх наверх ниж вниз сверх выш вверх вищ угор "
        "вгор під над üst "
        "alttak altind altin yukari aşaği tepes üzeri atasn bawahn"
    ),
    "colour": (
        "rötlich bläulich türkis turquois turques turchese turkos turkus turkuaz silber farbe farbi farbf "
        "bunt hellgr "
        "rougeâ jaunâ jaunes bleut bleuâ orangé argent multicol châtain bordeaux grisâ blanchâ verdât roji "
        "azul celest verdos "
        "verde amarill anaranj púrpur violet grisác rubio rubia blanqu coloread colorid rossast rosast aranci "
        "giallas giallo "
        "biancas bianco biond grigia vermelh avermelh alaranj amarel dourad pratead loir cinz colorid rood "
        "donker lichtgr lichtbl "
        "lichtr zilver gouden kleur gekleur veelkl groen blauw bruin oranje zwart mörk ljusg ljusb ljusr svart gråa "
        "gråt färg blå grön "
        "gyllen czerwon biał złot srebr kolor granatow beżow błękit rudy ruda rude rudo niebiesk ciemno jasno "
        "zielon żół czarn "
        "czern szar brązow pomarańcz fioletow kremow różow красн красе серебр золот оранж голуб беж бирюз "
        "цвет рыж сирен син "
        "белок белы бело бела беле блонд малин бордов разноцвет зелен желт черн чёрн жёлт коричн фиолет розов "
        "сер темн тёмн светл "
        "светло срібн кольор бірюз помаран руд жовт біл блакит фіолет рожев чорн сір червон kirmiz mavi yeşil "
        "sari pembe altin "
        "gümüş lacivert turkuaz rengar reng renk beyaz siyah turunc kahveren merah kemerah biru kebir jingg "
        "emas perak berwar "
        "warna krem hijau kuning"
    ),
    "crop": "",
}
# Parts that mark a direction or a colour in the joined words of German, Dutch and Swedish.
_WITHIN = {
    "flip": "links rechts vänster höger",
    "turn": "links rechts unten oben",
    "colour": (
        "grün blau schwarz braun gelb weiss grau färg farb rothaar blauw groen zwart bruin rood blå grön "
        "svart röd rosarot "
        "dunkelrot hellrot weinrot feuerrot haarig hårig harig"
    ),
    "crop": "",
}
_EAST = re.compile(r"\bl['’]est\b|\b[àa] est\b|\b(?:el|al|del) este\b")  # alone, `est` and `este` are French and Spanish
_SHORT_NUMBER = re.compile(r"(?<![\w.,:/-])\d{1,2}(?![\w.:/%-]|,\d)")  # a number of things, or an age, or a time

# The first rule of a word names it: sides also limit crops, because "on the left" is a place in the scene.
_LISTS = {"flip": _SIDES, "turn": _HEIGHTS + _SIDES, "colour": _COLOURS, "crop": _PLACES + _SIDES}


def _folded(text: str) -> str:
    """Return a text in lower case, without the vowel signs of Arabic and Hebrew, with `ss` for `ß` and `i` for `ı`."""
    return unicodedata.normalize("NFC", _VOWELS.sub("", text).casefold().replace("ı", "i").replace("i\u0307", "i"))


def _with_sides(rule: str, lists: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folded words of a rule, with those of sides, which also say where in the scene a thing is."""
    words = lists[rule] + (" " + lists["flip"] if rule in ("turn", "crop") else "")
    return tuple(dict.fromkeys(_folded(words).split()))


_VOWELS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670]")
_WORDS = {
    rule: frozenset((*_folded(words.replace("_", "")).split(), *_with_sides(rule, _FURTHER))) for rule, words in _LISTS.items()
}
_STARTS = {rule: _with_sides(rule, _BEGINS) for rule in RULES}
_PARTS = {rule: _with_sides(rule, _WITHIN) for rule in RULES}
_EVERYWHERE = {rule: set(_with_sides(rule, _ANYWHERE)) for rule in RULES}
_OTHER = {rule: re.compile("|".join(sorted(words, key=lambda word: (-len(word), word)))) for rule, words in _EVERYWHERE.items()}
_SPACED = re.compile(r"[^\W\d_]+")
_QUOTE = re.compile(r"[\"“„«「『]\s?\w[^\"“”»」』\n]{0,200}[\"“”»」』]")
_NUMBER = r"\s*-?\d*\.?\d+\s*"
_PLACES_IN_PIXELS = re.compile(
    rf"[\[(]{_NUMBER}(?:,{_NUMBER}){{3}}[\])]|\({_NUMBER},{_NUMBER}\)\s*,?\s*\({_NUMBER},{_NUMBER}\)"
    r"|<loc\d{4}>|<\|box_start\|>|<box>|<patch_index_\d|<points?\b|\bbbox(?:_2d)?\b"
)


def words_against(texts: Iterable[str]) -> dict[str, str]:
    """Return for each rule that the texts forbid the word for which they do, or QUOTED.

    The rules are those of RULES. Upper and lower case are the same.
    """
    found: dict[str, str] = {}
    for text in texts:
        folded = _folded(text)
        words = dict.fromkeys(_SPACED.findall(folded))
        for rule in RULES:
            if rule in found:
                continue
            own = _WORDS[rule]
            starts, parts = _STARTS[rule], _PARTS[rule]
            word = next((word for word in words if word in own or word.startswith(starts)), None)
            word = word or next((word for word in words for part in parts if part in word), None)
            if word is None and rule != "colour":
                match = _EAST.search(folded) or (_SHORT_NUMBER.search(folded) if rule == "crop" else None)
                word = match[0] if match else None
            if word is None and not folded.isascii():
                match = _OTHER[rule].search(folded)
                word = match[0] if match else None
            if word is not None:
                found[rule] = word
        if _QUOTE.search(text):
            for rule in ("flip", "turn"):
                found.setdefault(rule, QUOTED)
    return found


def has_coordinates(text: str) -> bool:
    """Return whether a text states boxes or points: four numbers in brackets, or a control token for boxes."""
    return _PLACES_IN_PIXELS.search(text) is not None
