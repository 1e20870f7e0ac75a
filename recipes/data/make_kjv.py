#!/usr/bin/env python3
"""Turns what Debian's `bible` program prints into prose: bible -f gen1:1-rev22:21 | make_kjv.py > kjv.txt"""

import re
import sys

TITLES = """Genesis;Exodus;Leviticus;Numbers;Deuteronomy;Joshua;Judges;Ruth;1 Samuel;2 Samuel;1 Kings;2 Kings;
1 Chronicles;2 Chronicles;Ezra;Nehemiah;Esther;Job;Psalms;Proverbs;Ecclesiastes;The Song of Solomon;Isaiah;Jeremiah;
Lamentations;Ezekiel;Daniel;Hosea;Joel;Amos;Obadiah;Jonah;Micah;Nahum;Habakkuk;Zephaniah;Haggai;Zechariah;Malachi;
Matthew;Mark;Luke;John;The Acts of the Apostles;Romans;1 Corinthians;2 Corinthians;Galatians;Ephesians;Philippians;
Colossians;1 Thessalonians;2 Thessalonians;1 Timothy;2 Timothy;Titus;Philemon;Hebrews;James;1 Peter;2 Peter;1 John;
2 John;3 John;Jude;Revelation""".replace("\n", "").split(";")
VERSES_A_PARAGRAPH = 4

VERSE = re.compile(r"(\d?[A-Za-z]+)(\d+):(\d+) +(.+)")


def main():
    titles = iter(TITLES)
    book = chapter = title = None
    paragraph = []

    def flush():
        if paragraph:
            print(" ".join(paragraph) + "\n")
            paragraph.clear()

    for line in sys.stdin:
        match = VERSE.fullmatch(line.strip())
        if not match:
            sys.exit(f"not a verse: {line!r}")
        if match[1] != book:
            book, chapter, title = match[1], None, next(titles)
        if match[2] != chapter:
            flush()
            chapter = match[2]
            print(f"{title}, Chapter {chapter}\n")
        text = " ".join(match[4].split())
        paragraph.append(text)
        if len(paragraph) >= VERSES_A_PARAGRAPH and text[-1] in ".?!":
            flush()
    flush()


main()
