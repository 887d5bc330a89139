"""Words are counted in every script, including scripts without spaces."""

import re
import sys

import pytest

from vlmdata.text.words import UNSPACED, count_words, is_plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n\u3000", 0),
        ("two words", 2),
        ("a — dash's café", 4),  # as str.split: without such a script, punctuation marks count
        ("고양이가 창가에 앉아", 3),  # Korean has spaces
        ("собака и дом", 3),
        ("一只黑白相间的猫坐在窗台上看外面的鸟", 9),
        ("猫", 1),
        ("猫。", 1),
        ("𠮷野家で食事", 3),
        ("富士山と桜の花が咲く湖のほとりの風景", 9),
        ("か\u3099き\u3099", 1),  # marks are not letters
        ("ｶﾒﾗﾊﾞｯｸﾞ", 3),
        ("แมวสีดำนั่งอยู่บนโต๊ะไม้ข้างหน้าต่าง", 13),
        ("แมว\u200bสี\u200bดำ", 3),
        ("ឆ្មាខ្មៅអង្គុយលើបង្អួច", 7),
        ("ແມວສີດຳນັ່ງຢູ່ເທິງໂຕະ", 8),
        ("ကြောင်အနက်ရောင်တစ်ကောင်", 6),
        ("བཀྲ་ཤིས་བདེ་ལེགས།", 5),
        ("iPhone 15の新しいカメラ。", 6),
        ("ｉＰｈｏｎｅ　１５の新しいカメラ", 6),
        ("ตอนที่ ๑๕ จบ", 4),
        ("😀 黑猫 😀", 1),
        ("ሰላም፡ለዓለም", 2),
    ],
)
def test_words_of_any_script_are_counted(text, words):
    assert count_words(text) == words


def test_a_plain_text_has_no_letter_of_such_scripts_and_no_space_that_html_keeps():
    special = re.compile(f"[{UNSPACED}\u1361\u200b\uff9e\uff9f]")
    letters = [chr(code) for code in range(128, sys.maxunicode + 1) if is_plain(chr(code))]
    assert len(letters) > 4_000
    assert [letter for letter in letters if special.match(letter) or letter.isspace()] == []
