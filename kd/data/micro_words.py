"""The words of the micro world: small closed sets of short words.

Tiny tokenizers then spell most words as one or two tokens, and tiny models can know them.
"""

NAMES = """
Ada Ben Cleo Dora Eve Finn Gus Hans Ida Jack Kim Leo Mia Ned Olga Pam Rosa Sam Tom Uma Vera Walt
Yara Zoe
""".split()
SURNAMES = "Berg Cole Dahl Ford Hale Kerr Lind Moss Nash Reed Shaw Webb".split()
CITIES = "Baku Bern Bonn Cork Doha Graz Kiev Lima Linz Lyon Nice Oslo Pisa Riga Rome York".split()
JOBS = (
    "actor baker clerk cook diver farmer guard judge miner nurse pilot poet singer tailor".split()
)
MANNERS = "busy famous rich young".split()
FOODS = "beans bread cake corn eggs figs fish ham kale nuts pears plums rice soup".split()
HOBBIES = "cards chess dance golf judo opera polo rowing rugby skiing tennis yoga".split()
PETS = "cat cow crow dog duck goat hen horse lamb mule parrot pig".split()
MONTHS = "January March April May June July August October".split()
COLOURS = "black blue brown gold green grey pink red silver white".split()
WORKS = "abbey bridge dam fort gate hall mill museum pier tower".split()
MATERIALS = "brick clay glass iron marble oak steel stone".split()
YEARS = "1810 1820 1830 1840 1850 1860 1870 1880 1890".split()
EVENTS = "fire flood frost riot storm war".split()
ROLES = "boy girl hunter king knight maid monk queen smith".split()
BEASTS = "bear bee deer fox frog hare lion mouse owl raven swan wolf".split()
THINGS = "bell book coat coin crown cup drum harp key lamp ring sword".split()
LANDMARKS = "barn cave farm hill inn lake pond wall well wood".split()
TRAITS = "cold dark deep empty old quiet secret wild".split()
REWARDS = ["berries", "a song", "a kiss", "milk", "honey", "a story", "bread", "a promise"]
FEELINGS = {
    "afraid": "trembled",
    "angry": "shouted",
    "ashamed": "blushed",
    "happy": "laughed",
    "sad": "wept",
    "tired": "yawned",
}
DRUGS = "Altin Bexa Dorin Fenol Lumix Mirta Nolex Riva Tavor Zelo".split()
DISEASES = "acne asthma burns cancer flu gout lupus malaria mumps polio".split()
PATIENTS = "adults babies boys girls men nurses twins women".split()
OUTCOMES = "fatigue fever itching pain pulse stress sugar weight".split()
HARMS = "cramps fits hives nausea rash tremor".split()
NUMBERS = "two three four five six seven eight nine ten twelve".split()
PLANS = ["a picnic", "the opera", "the zoo", "the beach", "a party", "the fair", "lunch", "a match"]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
GOODS = "bike boat camera coat lamp phone piano sofa table tent".split()
PRICES = "20 30 40 50 60 70 80 90".split()
FAULTS = ["a flat tyre", "a toothache", "a cold", "no money", "a noisy boss", "a lost key"]
REMEDIES = ["call a doctor", "rest", "go home", "ask for help", "wait", "drink tea"]
