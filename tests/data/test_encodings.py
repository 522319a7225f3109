"""Encodings: real sentences of many languages are read as they were written, from a few lines and from many."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.data.encodings import detect_encoding, guess_encoding

SENTENCES = {
    "English SMS": (
        "cp1252 mac_roman",
        "Free entry: win a £100 prize now!\nI don’t think he’s coming… call me – ok?\n"
        "Only £1.50/msg, you’ve been chosen",
    ),
    "English": ("cp1252", "The café on the corner doesn’t open until nine.\n“Naïve” is what she called the plan."),
    "pounds alone": ("cp1252", "You won £500\nCall now, £2 per min\nCash prize of £2000 waiting"),
    "euros alone": ("cp1252", "Der Versand kostet 5 €\nAb 50 € ist er frei"),
    "French": (
        "cp1252 iso8859_15 cp850 mac_roman",
        "Où est passé mon colis ? Il devait arriver à la fin de l’été.\n"
        "Ma carte a été refusée à la caisse, ça m’inquiète.\nVous êtes fermés le dimanche ?".replace("’", "'"),
    ),
    "German": (
        "cp1252 cp850 mac_roman",
        "Wie lange dauert die Überweisung nach Österreich?\n"
        "Meine Straße ist gesperrt, können Sie später liefern?\nIch möchte das Gerät zurückschicken.",
    ),
    "Spanish": (
        "cp1252 cp850 mac_roman",
        "¿Dónde está mi pedido? Todavía no ha llegado.\nQuería devolver el teléfono que compré mañana.\n"
        "Mi contraseña no funciona, ¿qué hago?",
    ),
    "Portuguese": (
        "cp1252",
        "Não consigo aceder à minha conta desde ontem.\nO cartão foi recusado, podem ajudar-me com a situação?\n"
        "Quando é que chegam as informações?",
    ),
    "Italian": (
        "cp1252",
        "Perché la carta è stata rifiutata?\nIl pacco non è più arrivato, così ho chiamato.\n"
        "Qual è l'età minima? Può essere già aperto.",
    ),
    "Dutch": ("cp1252", "Hoeveel kost één pakket naar België?\nDe financiële gegevens zijn geüpload."),
    "Swedish": (
        "cp1252",
        "När öppnar affären på lördag?\nJag vill ändra min adress, hur gör jag då?\nFår man åka med utan biljett?",
    ),
    "Danish": (
        "cp1252",
        "Hvornår åbner I på søndag?\nJeg kan ikke få adgang til min konto, når jeg prøver.\nÆblerne er for små.",
    ),
    "Icelandic": (
        "cp1252",
        "Hvenær opnar búðin á sunnudögum?\nÉg get ekki skráð mig inn, það kemur bara villa.\n"
        "Hvað kostar þetta í raun og veru?",
    ),
    "Polish": (
        "cp1250 iso8859_2 cp852",
        "Gdzie jest moja paczka? Miała przyjść w środę.\nNie mogę się zalogować, hasło nie działa.\n"
        "Chciałbym zwrócić zamówienie, które dostałem wczoraj.",
    ),
    "Czech": (
        "cp1250 iso8859_2 cp852",
        "Kdy mi přijde zásilka? Měla dorazit už včera.\nNemůžu se přihlásit, heslo nefunguje.\n"
        "Chtěl bych vrátit zboží, které jsem koupil v úterý.",
    ),
    "Hungarian": (
        "cp1250",
        "Mikor érkezik meg a csomagom? Tegnapra ígérték.\nNem tudok belépni, a jelszó nem jó.\n"
        "Szeretném visszaküldeni a hűtőt, amelyet hétfőn vettem.",
    ),
    "Romanian": (
        "cp1250",
        "Unde este coletul meu? Trebuia să ajungă miercuri.\nNu mă pot conecta, parola nu funcţionează.\n"
        "Aş vrea să returnez produsul, vă rog.",
    ),
    "Croatian": (
        "cp1250",
        "Gdje je moja pošiljka? Trebala je stići već jučer.\nNe mogu se prijaviti, šifra više ne radi.\n"
        "Želim vratiti uređaj.",
    ),
    "Turkish": (
        "cp1254",
        "Kargom nerede? Dün gelmesi gerekiyordu, hâlâ ulaşmadı.\nŞifremi unuttum, giriş yapamıyorum.\n"
        "Ürünü iade etmek istiyorum, nasıl yapacağım?",
    ),
    "Lithuanian": (
        "cp1257",
        "Kur yra mano siuntinys? Jis turėjo atvykti vakar.\nNegaliu prisijungti, slaptažodis neveikia.\n"
        "Norėčiau grąžinti prekę, kurią įsigijau šį mėnesį.",
    ),
    "Russian": (
        "cp1251 koi8_r cp866",
        "Где моя посылка? Она должна была прийти вчера.\nНе могу войти, пароль не подходит.\nХочу вернуть товар.",
    ),
    "Ukrainian": (
        "cp1251",
        "Де моя посилка? Вона мала прийти ще вчора.\nНе можу увійти, пароль не підходить.\n"
        "Що робити, якщо її загублено?",
    ),
    "Bulgarian": ("cp1251", "Къде е моята пратка? Трябваше да пристигне вчера.\nНе мога да вляза, паролата не работи."),
    "Greek": (
        "cp1253",
        "Πού είναι το δέμα μου; Έπρεπε να φτάσει χθες.\nΔεν μπορώ να συνδεθώ, ο κωδικός δεν λειτουργεί.",
    ),
    "Hebrew": ("cp1255", "איפה החבילה שלי? היא הייתה אמורה להגיע אתמול.\nאני לא מצליח להתחבר לחשבון."),
    "Arabic": ("cp1256", "أين طردي؟ كان من المفترض أن يصل أمس.\nلا أستطيع تسجيل الدخول إلى حسابي."),
    "Thai": ("cp874", "พัสดุของฉันอยู่ที่ไหน ควรจะมาถึงเมื่อวาน\nฉันเข้าสู่ระบบไม่ได้ รหัสผ่านไม่ถูกต้อง"),
    "Chinese": ("gb18030 gbk", "我的包裹在哪里？昨天就应该到了。\n我无法登录，密码不对。\n我想退货，请问怎么办理？"),
    "Traditional Chinese": (
        "big5",
        "我的包裹在哪裡？昨天就應該到了。\n我無法登入，密碼不對。\n我想退貨，請問怎麼辦理？",
    ),
    "Japanese": (
        "cp932 euc_jp",
        "荷物はどこですか。昨日届くはずでした。\nログインできません。パスワードが違うようです。\n商品を返品したいのですが、どうすればいいですか。",
    ),
    "Korean": (
        "cp949",
        "제 택배가 어디에 있나요? 어제 도착했어야 합니다.\n"
        "로그인이 안 돼요. 비밀번호가 틀렸다고 나옵니다.\n상품을 반품하고 싶습니다.",
    ),
}
CASES = [(name, encoding) for name, (encodings, _) in SENTENCES.items() for encoding in encodings.split()]


@pytest.mark.parametrize(("name", "encoding"), CASES)
def test_text_is_read_as_it_was_written(tmp_path: Path, name: str, encoding: str) -> None:
    """Another name is as good where it reads the same text; UTF-8 and UTF-16 are told apart from all of them."""
    text = SENTENCES[name][1]
    (tmp_path / "a.csv").write_bytes(("text,label\n" + text + "\n").encode(encoding))
    assert (tmp_path / "a.csv").read_text(encoding=detect_encoding(tmp_path / "a.csv")) == f"text,label\n{text}\n"
    for wide in ("utf-8", "utf-16"):
        (tmp_path / "a.csv").write_text(text, encoding=wide)
        assert (tmp_path / "a.csv").read_text(encoding=detect_encoding(tmp_path / "a.csv")) == text


def test_one_line_alone_is_mostly_enough() -> None:
    lines = [(line, encoding) for name, encoding in CASES for line in SENTENCES[name][1].split("\n")]
    odd = [(line, encoding) for line, encoding in lines if not line.isascii()]
    right = sum(
        line == line.encode(encoding).decode(guess_encoding(line.encode(encoding)), "replace") for line, encoding in odd
    )
    assert right >= 0.9 * len(odd)


def test_damaged_utf8_stays_utf8_and_is_left_to_the_reader(tmp_path: Path) -> None:
    text = "Le café de l’hôtel est fermé — à côté, “Chez Zoë” est ouvert.\n" * 5
    (tmp_path / "a.txt").write_bytes(b"text\n" + text.encode() + b"caf\xe9 \x92s\n")
    assert detect_encoding(tmp_path / "a.txt") == "utf-8"


@pytest.mark.parametrize("odd", [b"\xca\xd5\xe7", b"\x8d\xa0\x92", b"\x81\x90\xe6"])
def test_odd_bytes_apart_in_english_are_no_other_script(odd: bytes) -> None:
    text = "The parcel came on Monday{} and nobody{} was at home to sign{} for it.\n".replace("{}", "\x00").encode()
    for byte in odd:
        text = text.replace(b"\x00", bytes([byte]), 1)
    seen = [character for character in text.decode(guess_encoding(text)) if not character.isascii()]
    assert not any("\u0370" <= letter <= "\u1fff" for letter in seen)  # Greek, Cyrillic, Hebrew, Arabic, Thai


def test_a_sample_that_ends_within_a_character_is_read() -> None:
    text = SENTENCES["Japanese"][1].encode("cp932")
    assert {guess_encoding(text[: len(text) - less], is_truncated=True) for less in range(3)} == {"cp932"}


def test_long_lines_of_wide_characters_are_not_cut_into_halves(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes((SENTENCES["Chinese"][1].replace("\n", "") * 1000).encode("gb18030"))
    assert detect_encoding(tmp_path / "a.txt") == "gb18030"


def test_bytes_of_no_encoding_are_left_to_the_reader(tmp_path: Path) -> None:
    assert guess_encoding(b"") == "cp1252"
    (tmp_path / "a.txt").write_bytes(b"plain \x81\x8d\x8f\xff\xfe\xff\x9d\xa0\x80 text\n")
    assert detect_encoding(tmp_path / "a.txt")
