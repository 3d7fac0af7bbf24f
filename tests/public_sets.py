"""Miniatures of public data sets: files, columns, words and names of images as published, pixels and facts invented."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Row = Sequence[object]


def write_images(folder: Path, names: Iterable[str], size: tuple[int, int] = (20, 16)) -> None:
    """Draw a picture for each name; its folders are made."""
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_table(path: Path, header: str, rows: Iterable[Row], *, by: str = ",") -> None:
    """Write a table; text with the separator in it is quoted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [[f'"{each}"' if by in str(each) else str(each) for each in row] for row in rows]
    path.write_text("\n".join(by.join(line) for line in [header.split(","), *lines]) + "\n", encoding="utf-8")


def pad_ufes20(root: Path, n: int = 6) -> None:
    """Two lesions a patient; of every other image the questionnaire is empty, as where nothing was biopsied."""
    header = (
        "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
        "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,diameter_2,"
        "diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed"
    )
    words, rows = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK"), []
    for k in range(n):
        name, word = f"PAT_{k // 2}_{700 + k}_{k}.png", words[k // 2 % 6 if n > 6 else k % 6]
        asked = k % 2 == 0
        history = ["False", "True", "POMERANIA", "GERMANY"] if asked else [""] * 4
        more = ["True", "False", "True", "False", "3.0"] if asked else [""] * 5
        told = ["TRUE", "FALSE", "UNK", "FALSE", "TRUE", "FALSE"]
        facts = [40 + k % 50, "False" if asked else "", ("FEMALE" if k % 4 else "MALE") if asked else ""]
        sizes = [6.0, 5.0] if asked else ["", ""]
        rows.append([f"PAT_{k // 2}", 700 + k, *history, *facts, *more, "FOREARM", *sizes, word, *told, name, asked])
        write_images(root / "images" / f"imgs_part_{k % 3 + 1}", [name])
    write_table(root / "metadata.csv", header, rows)


def milk10k(root: Path, n: int = 3) -> None:
    """A clinical and a dermoscopic image of each lesion, in its folder; the truth is by lesion."""
    codes = ("AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC")
    truth, rows = [], []
    chosen = ("MEL", "SCCKA", "INF") if n < 11 else codes
    for k in range(n):
        lesion = f"IL_{k:07d}"
        truth.append([lesion, *("1.0" if code == chosen[k % len(chosen)] else "0.0" for code in codes)])
        for kind, image in (("clinical: close-up", f"ISIC_{800 + k:07d}"), ("dermoscopic", f"ISIC_{9000 + k:07d}")):
            about = ["A, clinic", "CC-BY-NC", "instrument only", 45, "female", k % 6, "lower_extremity", 0.1, 0.2]
            rows.append([lesion, kind, image, *about])
            write_images(root / "MILK10k_Training_Input" / lesion, [f"{image}.jpg"])
    write_table(root / "MILK10k_Training_GroundTruth.csv", f"lesion_id,{','.join(codes)}", truth)
    header = "lesion_id,image_type,isic_id,attribution,copyright_license,image_manipulation,age_approx,sex"
    write_table(
        root / "MILK10k_Training_Metadata.csv", f"{header},skin_tone_class,site,MONET_ulceration_crust,MONET_hair", rows
    )


def bcn20000(root: Path) -> None:
    words = ("nevus", "melanoma", "basal cell carcinoma", "seborrheic keratosis", "solar lentigo", "actinic keratosis")
    words += ("squamous cell carcinoma", "dermatofibroma", "vascular lesion", "melanoma metastasis", "scar")
    rows = [
        [f"BCN_{k:010d}.jpg", 55.0, "anterior torso", word, f"BCN_{k // 1:07d}", "2012-05-16", "female", "train"]
        for k, word in enumerate(words)
    ]
    header = "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split"
    write_table(root / "bcn_20k_train.csv", header, rows)
    write_images(root / "BCN_20k_train" / "bcn_20k_train", [str(row[0]) for row in rows])


def isic2019(root: Path) -> None:
    codes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    ids = [f"ISIC_{k:07d}{'_downsampled' if k == 1 else ''}" for k in range(8)]
    truth = [[name, *(f"{float(code == codes[k]):.1f}" for code in codes)] for k, name in enumerate(ids)]
    lesions = ["", "", *(f"BCN_{k:07d}" for k in range(2, 8))]
    facts = [[name, 55.0 if k else "", "head/neck", lesions[k], "male"] for k, name in enumerate(ids)]
    write_table(root / "ISIC_2019_Training_GroundTruth.csv", f"image,{','.join(codes)}", truth)
    write_table(root / "ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex", facts)
    write_images(root / "ISIC_2019_Training_Input", [f"{name}.jpg" for name in ids])


def isic2020(root: Path) -> None:
    words = ("nevus", "unknown", "melanoma", "lentigo NOS")
    said = [[word, "malignant" if word == "melanoma" else "benign", int(word == "melanoma")] for word in words]
    rows = [
        [f"ISIC_{k:07d}", f"IP_{k // 2:07d}", f"IL_{k:07d}", "female", 45.0, "upper extremity", *each]
        for k, each in enumerate(said)
    ]
    header = "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis"
    write_table(root / "ISIC_2020_Training_GroundTruth_v2.csv", f"{header},benign_malignant,target", rows)
    write_images(root / "ISIC_2020_Training_JPEG" / "train", [f"{row[0]}.jpg" for row in rows])


def isic2024(root: Path) -> None:
    levels = (
        ["Benign", "Benign", "", "", "", ""],
        ["Malignant::x", "Malignant", "Malignant melanocytic proliferations (Melanoma)", "Melanoma in situ", "", ""],
        ["Indeterminate::x", "Indeterminate", "Indeterminate melanocytic proliferations", "", "", ""],
    )
    rows = [
        [
            *(
                f"ISIC_{k:07d}",
                k % 2,
                f"IP_{k // 2:07d}",
                60.0,
                "male",
                "posterior torso",
                3.5 + k,
                "TBP tile: close-up",
            ),
            *("3D: white", 20.2, "A University", "CC-BY", f"IL_{k:07d}" if k else "", *names, "", "", 97.5),
        ]
        for k, names in enumerate(levels)
    ]
    header = "isic_id,target,patient_id,age_approx,sex,anatom_site_general,clin_size_long_diam_mm,image_type"
    header += (
        ",tbp_tile_type,tbp_lv_A,attribution,copyright_license,lesion_id,iddx_full,iddx_1,iddx_2,iddx_3,iddx_4,iddx_5"
    )
    header += ",mel_mitotic_index,mel_thick_mm,tbp_lv_dnn_lesion_confidence"
    write_table(root / "train-metadata.csv", header, rows)
    write_images(root / "train-image" / "image", [f"{row[0]}.jpg" for row in rows])


def isic_archive(root: Path) -> None:
    """Metadata and images in one folder, as isic-cli leaves them."""
    benign, grown = ("Benign", "Benign melanocytic proliferations"), "Malignant melanocytic proliferations (Melanoma)"
    levels = (
        (*benign, "Nevus", "Nevus, Atypical, Dysplastic, or Clark", ""),
        (*benign, "Nevus", "", ""),
        ("Malignant", grown, "Melanoma Invasive", "Melanoma Invasive, Superficial spreading", ""),
    )
    rows = [
        [
            *(f"ISIC_{k:07d}", "Hospital A, Dept.", "CC-BY-NC", 30 + k, "head/neck", "TRUE", "dermoscopic", *names),
            *("histopathology", f"IL_{k:07d}", f"IP_{k // 2:07d}", "female"),
        ]
        for k, names in enumerate(levels)
    ]
    header = "isic_id,attribution,copyright_license,age_approx,anatom_site_general,concomitant_biopsy,image_type"
    header += ",diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5,diagnosis_confirm_type"
    write_table(root / "metadata.csv", f"{header},lesion_id,patient_id,sex", rows)
    write_images(root, [f"{row[0]}.jpg" for row in rows])
    (root / "licenses").mkdir()
    (root / "licenses" / "CC-BY-NC.txt").write_text("licence")
    (root / "attribution.txt").write_text("A")


def derm7pt(root: Path) -> None:
    words = ("clark nevus", "melanoma (less than 0.76 mm)", "basal cell carcinoma", "dermatofibroma")
    rows = [
        [
            *(k, word, 1, *["absent"] * 7, "low", "flat", "lower limbs", "male", "excision"),
            *(f"N{k}l/Ncl{k:03d}.jpg", f"N{k}l/Nal{k:03d}.jpg", "", "x, y"),
        ]
        for k, word in enumerate((*words, "seborrheic keratosis"))
    ]
    header = "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures"
    header += ",dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation"
    write_table(root / "meta" / "meta.csv", f"{header},location,sex,management,clinic,derm,case_id,notes", rows)
    write_images(root / "images", [str(row[place]) for row in rows for place in (15, 16)])


def fitzpatrick17k(root: Path) -> None:
    """One image is gone from its address; -1 is an unknown skin type."""
    said = (
        ("psoriasis", "inflammatory", "non-neoplastic", 3),
        ("malignant melanoma", "malignant melanoma", "malignant", -1),
        ("seborrheic keratosis", "benign epidermal", "benign", 6),
        ("scabies", "inflammatory", "non-neoplastic", 1),
    )
    rows = [
        [f"{k:032x}", scale, scale, label, nine, three, "", f"http://x/{k}.jpg", f"x{k}.jpg"]
        for k, (label, nine, three, scale) in enumerate(said)
    ]
    header = "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url"
    write_table(root / "fitzpatrick17k.csv", f"{header},url_alphanum", rows)
    write_images(root / "images", [f"{row[0]}.jpg" for row in rows[:3]])


def ddi(root: Path) -> None:
    said = ((56, False, "melanocytic-nevi"), (12, True, "mycosis-fungoides"), (34, False, "verruca-vulgaris"))
    rows = [[k, k + 1, f"{k + 1:06d}.png", *each] for k, each in enumerate(said)]
    write_table(root / "ddi_metadata.csv", ",DDI_ID,DDI_file,skin_tone,malignant,disease", rows)
    write_images(root, [str(row[2]) for row in rows])


def dermamnist(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for place, (part, n) in enumerate((("train", 7), ("val", 2), ("test", 1))):
        arrays[f"{part}_images"] = np.random.default_rng(place).integers(0, 256, (n, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(n, dtype=np.uint8)[:, None]
    np.savez_compressed(root / "dermamnist.npz", **arrays)


def isic2018_test(root: Path, n: int = 8) -> None:
    """The table as Dataverse shows it, with quotes and tabs; ISIC_0035068 is not among the images."""
    codes = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    ids = [f"ISIC_{34524 + k:07d}" for k in range(n - 1)] + ["ISIC_0035068"]
    rows = [
        [f'"HAMTEST_{k // 2:07d}"', f'"{name}"', f'"{codes[k // 2 % 7]}"', '"histo"', 45.0, '"female"', '"back"', '"x"']
        for k, name in enumerate(ids)
    ]
    header = '"lesion_id","image_id","dx","dx_type","age","sex","localization","dataset"'
    write_table(root / "ISIC2018_Task3_Test_GroundTruth.tab", header, rows, by="\t")
    write_images(root / "ISIC2018_Task3_Test_Images", [f"{name}.jpg" for name in ids[:-1]])


WRITERS: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (
        *(pad_ufes20, milk10k, bcn20000, isic2019, isic2020, isic2024, isic_archive, derm7pt, fitzpatrick17k, ddi),
        *(dermamnist, isic2018_test),
    )
}
