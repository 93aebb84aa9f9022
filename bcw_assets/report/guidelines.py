"""What two reporting guidelines ask of a prediction model, and what this project can answer.

Sources: G. S. Collins et al., TRIPOD+AI, BMJ 385 (2024) e078378 (the items are paraphrased); R. F. Wolff et al.,
PROBAST, Ann. Intern. Med. 170 (2019) 51-58.
"""

from typing import NamedTuple

RUN = "this run"
AUTHOR = "the author"
NOT_APPLICABLE = "does not apply"


class Item(NamedTuple):
    """What the guideline asks for, who answers it, and where or why not.

    Attributes:
        code: of the item.
        asks: for what, paraphrased.
        by: who answers it.
        where: the section of the card, or why not.
        of_uci_only: whether that is known of UCI's table only; of another the author must answer.
    """

    code: str
    asks: str
    by: str
    where: str
    of_uci_only: bool = False


TRIPOD_AI = (
    Item("1", "Title names the study as developing or evaluating a prediction model", AUTHOR, ""),
    Item("2", "Abstract", AUTHOR, ""),
    Item("3a", "Healthcare context and rationale", AUTHOR, ""),
    Item("3b", "Target population, intended purpose and users", AUTHOR, "Intended use, here, is a start"),
    Item("3c", "Known health inequalities", AUTHOR, "no sociodemographic column is in the table"),
    Item("4", "Objectives", AUTHOR, ""),
    Item("5a", "Sources of data, and how representative they are", RUN, "The data", of_uci_only=True),
    Item("5b", "Dates of data collection", AUTHOR, "the table has no dates"),
    Item("6a", "Setting, number and location of centres", RUN, "The data", of_uci_only=True),
    Item("6b", "Eligibility criteria", AUTHOR, "they are not recorded"),
    Item("6c", "Treatments", NOT_APPLICABLE, "the diagnosis precedes treatment", of_uci_only=True),
    Item("7", "Data preparation and quality checks", RUN, "docs/rules.md and the checks of `raw_data`"),
    Item("8a", "Outcome and how it was determined", RUN, "The data", of_uci_only=True),
    Item("8b", "Assessors of a subjective outcome", AUTHOR, "not recorded"),
    Item("8c", "Blinding of the outcome assessment", AUTHOR, "not recorded"),
    Item("9a", "Choice of initial predictors", RUN, "all measurements of the table, none selected"),
    Item("9b", "Definition of all predictors", RUN, "column descriptions of `raw_data`"),
    Item(
        "9c", "Assessors of subjective predictors", AUTHOR, "somebody outlined each nucleus by hand", of_uci_only=True
    ),
    Item("10", "Sample size and its justification", RUN, "Training"),
    Item("11", "Missing data", RUN, "none is allowed: a row with a missing value is refused"),
    Item("12a", "How data were used for development and evaluation", RUN, "Training"),
    Item("12b", "Handling of predictors", RUN, "standardised by the training rows, linear in the log odds"),
    Item("12c", "Type of model, building steps, internal validation", RUN, "Training"),
    Item("12d", "Heterogeneity across clusters", NOT_APPLICABLE, "one table, without centres", of_uci_only=True),
    Item("12e", "Measures and plots of performance", RUN, "Performance, evaluation.png"),
    Item("12f", "Model updating after evaluation", NOT_APPLICABLE, "the model is not updated"),
    Item("12g", "How predictions are calculated", RUN, "the formula in `model.json`"),
    Item("13", "Class imbalance", RUN, "no resampling of classes, so that probabilities stay calibrated"),
    Item("14", "Approaches to fairness", AUTHOR, "impossible without sociodemographic columns"),
    Item("15", "Model output and thresholds", RUN, "Operating points"),
    Item("16", "Differences between development and evaluation data", NOT_APPLICABLE, "both are the same table"),
    Item("17", "Ethical approval", AUTHOR, ""),
    Item("18a", "Funding", AUTHOR, ""),
    Item("18b", "Conflicts of interest", AUTHOR, ""),
    Item("18c", "Protocol", AUTHOR, ""),
    Item("18d", "Registration", AUTHOR, ""),
    Item("18e", "Availability of data", RUN, "How to cite the data", of_uci_only=True),
    Item("18f", "Availability of code", RUN, "this repository"),
    Item("19", "Patient and public involvement", AUTHOR, ""),
    Item(
        "20a",
        "Flow of participants, with and without the outcome",
        RUN,
        "The data, as far as the table tells",
        of_uci_only=True,
    ),
    Item("20b", "Characteristics of the participants", AUTHOR, "no age, sex or ethnicity is in the table"),
    Item("20c", "Comparison of development and evaluation data", NOT_APPLICABLE, "both are the same table"),
    Item("21", "Participants and events in each analysis", RUN, "The data, Training"),
    Item("22", "The full model", RUN, "`model.json`"),
    Item("23a", "Performance with confidence intervals, and in subgroups", RUN, "Performance, Subgroups"),
    Item(
        "23b",
        "Heterogeneity of performance across clusters",
        NOT_APPLICABLE,
        "one table, without centres",
        of_uci_only=True,
    ),
    Item("24", "Results of model updating", NOT_APPLICABLE, "the model is not updated"),
    Item("25", "Interpretation, with fairness, beside other studies", AUTHOR, ""),
    Item("26", "Limitations", RUN, "Limits, Risk of bias", of_uci_only=True),
    Item("27a", "Handling of poor or missing input", RUN, "a table that breaks a rule is refused: docs/rules.md"),
    Item("27b", "Interaction and expertise that users need", AUTHOR, ""),
    Item("27c", "Next steps: applicability and generalisability", AUTHOR, "patients of another hospital"),
)

YES, LIKELY, UNLIKELY, NO, UNKNOWN = "yes", "probably yes", "probably no", "no", "no information"


class Question(NamedTuple):
    """A signalling question, and its answer for UCI's table.

    Attributes:
        domain: that it is about.
        code: of the question.
        asks: shortened.
        answer: YES to UNKNOWN; None where the numbers of the run answer.
        why: in words.
    """

    domain: str
    code: str
    asks: str
    answer: str | None
    why: str


PROBAST = (
    Question(
        "Participants",
        "1.1",
        "Were appropriate data sources used?",
        UNKNOWN,
        "a series of one clinic; how it was drawn is not recorded",
    ),
    Question("Participants", "1.2", "Were all inclusions and exclusions appropriate?", UNKNOWN, "not recorded"),
    Question(
        "Predictors",
        "2.1",
        "Were predictors defined and assessed alike for everybody?",
        LIKELY,
        "one program, one hospital",
    ),
    Question("Predictors", "2.2", "Were they assessed without knowledge of the outcome?", UNKNOWN, "not recorded"),
    Question(
        "Predictors", "2.3", "Are all available when the model is to be used?", YES, "if the same program measures them"
    ),
    Question("Outcome", "3.1", "Was the outcome determined appropriately?", LIKELY, "biopsy or follow-up"),
    Question("Outcome", "3.2", "Was a standard definition used?", LIKELY, "biopsy or follow-up"),
    Question(
        "Outcome", "3.3", "Were predictors left out of its definition?", UNKNOWN, "the same sample may have led to it"
    ),
    Question(
        "Outcome",
        "3.4",
        "Was it determined alike for everybody?",
        NO,
        "malignant by biopsy, benign by biopsy or follow-up",
    ),
    Question("Outcome", "3.5", "Was it determined without knowledge of the predictors?", UNKNOWN, "not recorded"),
    Question("Outcome", "3.6", "Was the time between predictors and outcome appropriate?", UNKNOWN, "not recorded"),
    Question("Analysis", "4.1", "Was the number of participants with the outcome reasonable?", None, ""),
    Question(
        "Analysis",
        "4.2",
        "Were continuous predictors handled appropriately?",
        YES,
        "kept continuous, though only linear",
    ),
    Question("Analysis", "4.3", "Were all enrolled participants analysed?", UNKNOWN, "the table may be a selection"),
    Question(
        "Analysis", "4.4", "Were missing data handled appropriately?", UNKNOWN, "none is missing; why is not recorded"
    ),
    Question("Analysis", "4.5", "Was selection by univariable analysis avoided?", YES, "nothing is selected"),
    Question(
        "Analysis",
        "4.6",
        "Were complexities of the data accounted for?",
        UNKNOWN,
        "no censoring; how patients were sampled is not recorded",
    ),
    Question(
        "Analysis",
        "4.7",
        "Were relevant measures of performance evaluated?",
        YES,
        "discrimination, calibration, usefulness",
    ),
    Question(
        "Analysis",
        "4.8",
        "Were overfitting and optimism accounted for?",
        LIKELY,
        "cross-validated; but the recipe was chosen on this table",
    ),
    Question("Analysis", "4.9", "Does the final model correspond to the analysis?", YES, "it is what was fitted"),
)
