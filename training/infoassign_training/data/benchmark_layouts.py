"""The benchmarks by name, and how each must lie on disk; without torch, for the command line's help."""

from collections.abc import Mapping

TRANSFER = (
    "aircraft",
    "caltech101",
    "cars",
    "cifar10",
    "cifar100",
    "dtd",
    "flowers",
    "food101",
    "pets",
    "sun397",
    "voc2007",
)
"""The eleven that encoders are transferred to (Kornblith et al., 2019; Ericsson et al., 2021; MIRA's table 5)."""
SETS: Mapping[str, str] = {
    "digits": "no place: scikit-learn's digits need no files",
    "folder": "WHERE/train/CLASS/*.jpg and WHERE/val/CLASS/*.jpg or WHERE/test/CLASS/*.jpg",
    "packed": "WHERE/train and WHERE/val or WHERE/test, each written by infoassign pack",
    "imagenet": "WHERE/train/n01440764/*.JPEG and WHERE/val/n01440764/*.JPEG",
    "svhn": "WHERE/train_32x32.mat and WHERE/test_32x32.mat",
    "stl10": "WHERE/stl10_binary/",
    "cifar10": "WHERE/cifar-10-batches-py/",
    "cifar100": "WHERE/cifar-100-python/",
    "places205": "WHERE/data/vision/torralba/deeplearning/images256/a/abbey/*.jpg and"
    " WHERE/trainvalsplit_places205/{train,val}_places205.csv",
    "places365": "WHERE/data_256_standard/a/airfield/*.jpg, WHERE/val_256/*.jpg and"
    " WHERE/{categories_places365,places365_train_standard,places365_val}.txt",
    "aircraft": "WHERE/fgvc-aircraft-2013b/data/ with images/, variants.txt and images_variant_{train,val,test}.txt",
    "caltech101": "WHERE/caltech101/101_ObjectCategories/CLASS/*.jpg, BACKGROUND_Google among the classes",
    "cars": "WHERE/stanford_cars/ with cars_train/, cars_test/, cars_test_annos_withlabels.mat and"
    " devkit/{cars_meta,cars_train_annos}.mat",
    "dtd": "WHERE/dtd/dtd/ with images/CLASS/*.jpg and labels/{train1,val1,test1}.txt",
    "flowers": "WHERE/flowers-102/ with jpg/, imagelabels.mat and setid.mat",
    "food101": "WHERE/food-101/ with images/CLASS/*.jpg and meta/{train,test}.json",
    "pets": "WHERE/oxford-iiit-pet/ with images/ and annotations/{trainval,test}.txt",
    "sun397": "WHERE/SUN397/ with a/abbey/*.jpg and so on, ClassName.txt, Training_01.txt and Testing_01.txt",
    "voc2007": "WHERE/VOCdevkit/VOC2007/ with JPEGImages/, ImageSets/Main/{train,val,test}.txt and"
    " ImageSets/Main/CLASS_{train,val,test}.txt",
}
"""What ``NAME:WHERE`` expects; where a layout begins with a folder of the set's own, WHERE may be that folder, too."""
