"""Words that precede a telephone number, in the fifty most written languages: telephone, mobile, fax, WhatsApp.

The words are grouped by script, because twenty languages share "telefon". They match only as whole words, except in
Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese, where they match anywhere.
"""

from __future__ import annotations

from vlmdata.text.words import UNSPACED

_SPACED = (
    # Latin: Germanic, Romance, Baltic, Slavic, Turkic, Celtic, Vietnamese, Malay, Tagalog, Swahili
    r"tel telephone telephones telefon telefoon telefone telefones tel[ée]fonos? t[ée]l t[ée]l[ée]phone t[eè]l[eè]fon "
    r"t[ée]lef tfno tfn tlf tlfn telefono telefoni telefonas telefonu telefonul telefonszám telefonnummer telefoonnummer "
    r"telefónne telefonní telefonos? tālr tālrunis puhelin puhelinnumero puh matkapuhelin sími síma farsími simu simo ffôn "
    r"fón guthán telefòn telepono selpon telp telpon telepon ponsel handphone no\.?\s?hp nomor\s?hp điện\sthoại đt sđt "
    r"đtdđ di\sđộng zalo phone phones ph mobile mobil mobiel mobilnummer mobilnr m[óo]vil m[òo]bil mob mobilní mobilné "
    r"mobilni mobiln[ýy] mobitel mobiltelefon mobilusis mobilais mobiil mobiilne kom[óo]rka kom[óo]rkowy kom\. "
    r"telem[óo]vel cell cellphone cellulare cellulaire celular cel selfoon handy gsm cep\s?tel\w* "
    r"cep(?!\W{0,3}\d{5}-?\d{3}(?!\d)) "  # CEP is also Brazil's postal code
    r"fax telefax telecopie télécopie faks faksi fakss faksas facs "
    r"call(?!\sn(?:o|umber)\b) text sms dial ring bel hotline whatsapp whats\sapp zap wa(?=\s?:) viber wechat "
    r"portable contact contacto contato contatto kontakt kontakta kontak hubungi iletişim liên\shệ gọi appelez appeler "
    r"llame llamar ll[áa]manos ligue chiama anrufen zadzwoń dzwoń zavolejte hívjon sunați "
    # Cyrillic, Greek, Armenian, Georgian
    r"тел телефон телефона телефону телефоны телефонный моб мобильный мобільний мобилен мобилни мобильник мобільны сотовый "
    r"сот ұялы утас факс ватсап вотсап вайбер вацап контакт контакты контакти звоните позвоните звонить звони дзвоніть "
    r"телефонуйте τηλ τηλέφωνο τηλεφωνο κιν κινητό κινητο φαξ επικοινωνία հեռ հեռախոս բջջ ֆաքս ტელ ტელეფონი მობ მობილური "
    # Hebrew, Arabic with Persian, Urdu and Kurdish, Amharic
    r"טלפון טל נייד סלולרי פלאפון פקס וואטסאפ ווצאפ ስልክ ፋክስ "
    r"(?:و?ال|بال|لل)?(?:هاتف|تلفون|تليفون|موبايل|جوال|محمول|نقال|خلوي|فاكس|واتساب|واتس\sاب|تلفن|موبایل|همراه|فکس|نمابر|دورنگار|"
    r"واتس|تواصل|للتواصل|اتصل|للطلب|للحجز|رابطہ|واتساپ|فون|موبائل|فیکس|تەلەفۆن) "
    # India, Nepal and Sri Lanka
    r"फ़?ोन फ\u095eोन \u095eोन टेलीफ़?ोन दूरभाष दूरध्वनी मोबाइल मोबाईल फ़?ैक्स संपर्क सम्पर्क संपर्क\sकरें व्हाट्सएप "
    r"व्हाट्सऐप व्हॉट्सॲप ফোন টেলিফোন মোবাইল মুঠোফোন যোগাযোগ ফ্যাক্স தொலைபேசி போன் ஃபோன் மொபைல் கைபேசி அலைபேசி ఫోన్ ఫోను "
    r"మొబైల్ ફોન મોબાઇલ મોબાઈલ ಫೋನ್ ಮೊಬೈಲ್ ದೂರವಾಣಿ ഫോൺ മൊബൈൽ ਫ਼?ੋਨ ਮੋਬਾਈਲ ਮੋਬਾਇਲ ଫୋନ ମୋବାଇଲ දුරකථන දුරකථනය ජංගම "
)
_ANYWHERE = (
    "电话 電話 手机 手機 热线 熱線 传真 傳真 座机 微信 携帯 携帯電話 ケータイ ファックス ファクス フリーダイヤル 联系 "
    "聯繫 联络 連絡先 問い合わせ 전화 휴대폰 핸드폰 휴대전화 팩스 연락처 문의 โทร โทรศัพท์ มือถือ แฟกซ์ โทรสาร ติดต่อ ໂທ "
    "ໂທລະສັບ ມືຖື ទូរស័ព្ទ ဖုန်း ☎ ☏ 📞 📱 "
)
_NUMBER = (  # "number" and other words between such a word and the digits
    r"(?:us|no|nr|number|numbers|at|is|on|fax|mobile|le|au|nummer|num|numero|número|numéro|numer|numărul|número\sde|numaras[ıi]|"
    r"számom?|číslo|nomor|nombor|broj|số|liên\shệ)(?![a-z])|n[º°]|№|номер|број|αριθμός|επικοινωνίας|αρ\.?|رقم|شماره|تماس|نمبر|नंबर|नम्बर|नं|नंबर|নম্বর|নং|எண்|"
    r"నంబర్|నెంబర్|નંબર|ನಂಬರ್|നമ്പർ|ਨੰਬਰ|අංකය|מספר|ቁጥር|号码|號碼|号|號|番号|同号|同號|번호|หมายเลข|ເລກ|លេខ|နံပါတ်"
)
_BY = r"[\s.:#@/)፡]"


def _either(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


ANNOUNCED = (
    rf"(?iu:(?:(?<![^\W{UNSPACED}가-힣])(?:{_either(_SPACED)})(?![^\W\d_{UNSPACED}가-힣])|{_either(_ANYWHERE)})"
    rf"(?:(?:-|{_BY}{{0,3}})(?:{_NUMBER})){{0,2}}{_BY}{{0,4}})"
)
"""Pattern of one of these words and of the text between it and the number, such as "Tel. no.: "."""
