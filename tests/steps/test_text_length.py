import pytest

from tests.rows import captions
from vlmdata.steps.text_length import TextLength


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("two words", "min_words"),
        ("three short words", None),
        ("a b c", "min_chars"),
        ("a b cd", None),
        ("a b c d e f", "max_words"),
    ],
)
def test_the_limits_of_the_length_are_inclusive(text, reason):
    assert TextLength(max_words=5).run(captions([text]))["reason"].to_pylist() == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "红色的小汽车",  # six characters, DataComp's minimum
        "一只黑白相间的猫坐在窗台上看外面的鸟",
        "富士山と桜の花が咲く湖のほとりの風景",
        "แมวสีดำนั่งอยู่บนโต๊ะไม้ข้างหน้าต่าง",
        "窓辺に座っている黒い猫",
        "แมวสีดำนั่งอยู่บนโต๊ะ",
        "ឆ្មាខ្មៅអង្គុយលើបង្អួច",
        "ແມວສີດຳນັ່ງຢູ່ເທິງໂຕະ",
        "ကြောင်အနက်ရောင်တစ်ကောင်",
    ],
)
def test_scripts_without_blanks_have_words_unless_the_published_count_is_chosen(text):
    assert TextLength().run(captions([text]))["reason"].to_pylist() == [None]
    assert TextLength(words="python").run(captions([text]))["reason"].to_pylist() == ["min_words"]
