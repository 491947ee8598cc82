# A Snakemake workflow: a large archive of CTs to one dataset, batch by batch, on one machine or a cluster.
#
#   snakemake --snakefile examples/archive.smk --cores 8 --config archive=/data/archive salt=/safe/ucadi.salt size=128
#
# The archive holds a folder for each batch (a year, a delivery), each with its labels.csv and a folder or zip file for
# each case. What is there already is not read again; a batch that fails does not stop the others (--keep-going).
from pathlib import Path

archive = Path(config["archive"])
salt = Path(config["salt"])  # one for all batches: it makes the ids, by which a patient is known again
size = int(config.get("size", 128))
folds = int(config.get("folds", 5))
batches = sorted(labels.parent.name for labels in archive.glob("*/labels.csv"))
if not batches:
    raise WorkflowError(f"{archive}: no batch has a labels.csv")


rule all:
    input:
        "dataset.h5",
        "dataset.split",


rule preprocess:
    input:
        labels=str(archive / "{batch}" / "labels.csv"),
    output:
        dataset="parts/{batch}.h5",
        report=directory("reports/{batch}"),
    params:
        source=lambda wildcards: archive / wildcards.batch,
        salt=salt,
        size=size,
    log:
        "logs/{batch}.log",
    threads: 2
    shell:
        "ucadi preprocess {params.source:q} --labels {input.labels:q} --salt {params.salt:q} --size {params.size}"
        " --workers {threads} --report {output.report} --output {output.dataset} > {log} 2>&1"


rule merge:
    input:
        expand("parts/{batch}.h5", batch=batches),
    output:
        "dataset.h5",
    log:
        "logs/merge.log",
    shell:
        "ucadi merge {input} --output {output} > {log} 2>&1"


rule split:
    input:
        "dataset.h5",
    output:
        "dataset.split",
    params:
        folds=folds,
    log:
        "logs/split.log",
    shell:
        "ucadi split {input} --folds {params.folds} --output {output} > {log} 2>&1"
