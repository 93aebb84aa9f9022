"""Writes every object of the bucket to standard output as a tar archive, or stores those of one from standard input."""

import io
import sys
import tarfile

import boto3

BUCKET = "bcw"


def save() -> None:
    """Write the archive; an object that is added meanwhile may be missing from it."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for entry in page.get("Contents", []):
                body = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
                member = tarfile.TarInfo(entry["Key"])
                member.size, member.mtime = len(body), int(entry["LastModified"].timestamp())
                archive.addfile(member, io.BytesIO(body))


def load() -> None:
    """Make the bucket what the archive says: store its objects, then delete what is not among them."""
    stored = set()
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            if content := archive.extractfile(member):
                client.put_object(Bucket=BUCKET, Key=member.name, Body=content.read())
                stored.add(member.name)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", []):
            if entry["Key"] not in stored:
                client.delete_object(Bucket=BUCKET, Key=entry["Key"])


if __name__ == "__main__":
    client = boto3.client("s3")
    {"save": save, "load": load}[sys.argv[1]]()
