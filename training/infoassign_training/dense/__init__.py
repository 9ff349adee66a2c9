"""What an encoder is worth where every place of an image counts: trained further on COCO and PASCAL VOC, and scored."""
