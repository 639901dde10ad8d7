"""The 32 languages of CLaS-Bench, in its order, with the labels of its identifier that count as
each.

NLLB's lid218e writes a label as an ISO 639-3 code and a script. The list is strict: a relative
(`prs_Arab`, `azj_Latn`, `zsm_Latn`, another Arabic variety) is a failure. `langid` follows it; a
test holds the two together. Source: the released code of CLaS-Bench (arXiv 2601.08331).
"""

LABELS: dict[str, tuple[str, ...]] = {
    "en": ("eng_Latn",),
    "ar": ("arb_Arab",),
    "bo": ("bod_Tibt",),
    "da": ("dan_Latn",),
    "de": ("deu_Latn",),
    "es": ("spa_Latn",),
    "fr": ("fra_Latn",),
    "hi": ("hin_Deva",),
    "it": ("ita_Latn",),
    "ja": ("jpn_Jpan",),
    "ko": ("kor_Hang",),
    "mt": ("mlt_Latn",),
    "nl": ("nld_Latn",),
    "no": ("nob_Latn", "nno_Latn"),
    "pl": ("pol_Latn",),
    "pt": ("por_Latn",),
    "ru": ("rus_Cyrl",),
    "sv": ("swe_Latn",),
    "tr": ("tur_Latn",),
    "zh": ("zho_Hans", "zho_Hant", "yue_Hant"),
    "sk": ("slk_Latn",),
    "el": ("ell_Grek",),
    "kk": ("kaz_Cyrl",),
    "sw": ("swh_Latn",),
    "ka": ("kat_Geor",),
    "uk": ("ukr_Cyrl",),
    "fa": ("fas_Arab", "pes_Arab"),
    "th": ("tha_Thai",),
    "id": ("ind_Latn",),
    "vi": ("vie_Latn",),
    "cs": ("ces_Latn",),
    "ro": ("ron_Latn",),
}
