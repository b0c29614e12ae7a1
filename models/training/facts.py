"""The small world as tables: plain facts that anyone can check, and short how-tos.

`TABLES` maps a kind to lines of `entity: value` pairs, parted by semicolons; `world.py` gives each kind
its wording. The tables know nothing about questions, answers or models.
"""

TABLES: dict[str, str] = {
    "capital": """
France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; Ireland: Dublin;
Norway: Oslo; Sweden: Stockholm; Finland: Helsinki; Denmark: Copenhagen; Iceland: Reykjavik;
Poland: Warsaw; Austria: Vienna; Hungary: Budapest; Greece: Athens; Turkey: Ankara; Egypt: Cairo;
Kenya: Nairobi; Ghana: Accra; Senegal: Dakar; Morocco: Rabat; Ethiopia: Addis Ababa; Japan: Tokyo;
China: Beijing; India: New Delhi; Nepal: Kathmandu; Thailand: Bangkok; Vietnam: Hanoi; Mongolia: Ulaanbaatar;
Indonesia: Jakarta; Iran: Tehran; Iraq: Baghdad; Canada: Ottawa; Mexico: Mexico City; Cuba: Havana;
Peru: Lima; Chile: Santiago; Argentina: Buenos Aires; Brazil: Brasilia; Colombia: Bogota;
Ecuador: Quito; Uruguay: Montevideo; Australia: Canberra; New Zealand: Wellington; Fiji: Suva;
Romania: Bucharest; Bulgaria: Sofia; Croatia: Zagreb; Serbia: Belgrade; Belgium: Brussels;
Latvia: Riga; Estonia: Tallinn; Lithuania: Vilnius; Cyprus: Nicosia; Uganda: Kampala; Zambia: Lusaka
""",
    "currency": """
Japan: the yen; India: the rupee; China: the yuan; Sweden: the krona; Poland: the zloty; Mexico: the peso;
Hungary: the forint; Thailand: the baht; Vietnam: the dong; Turkey: the lira; Brazil: the real; Peru: the sol;
Switzerland: the franc; Germany: the euro; Canada: the dollar; Kenya: the shilling; South Africa: the rand;
Morocco: the dirham; Iran: the rial; Romania: the leu
""",
    "continent": """
Kenya: Africa; Egypt: Africa; Ghana: Africa; Morocco: Africa; Senegal: Africa; Uganda: Africa; Zambia: Africa;
Japan: Asia; China: Asia; India: Asia; Nepal: Asia; Thailand: Asia; Vietnam: Asia; Mongolia: Asia; Iraq: Asia;
France: Europe; Norway: Europe; Poland: Europe; Greece: Europe; Ireland: Europe; Portugal: Europe;
Hungary: Europe; Latvia: Europe; Peru: South America; Chile: South America; Brazil: South America;
Ecuador: South America; Uruguay: South America; Canada: North America; Mexico: North America;
Cuba: North America; Australia: Oceania; Fiji: Oceania; New Zealand: Oceania
""",
    "language": """
Brazil: Portuguese; Austria: German; Mexico: Spanish; Egypt: Arabic; Iran: Persian; Japan: Japanese;
Sweden: Swedish; Denmark: Danish; Finland: Finnish; Poland: Polish; Hungary: Hungarian; Greece: Greek;
Turkey: Turkish; Thailand: Thai; Vietnam: Vietnamese; Senegal: French; Australia: English; Romania: Romanian;
Nepal: Nepali; Iceland: Icelandic; Italy: Italian; Mongolia: Mongolian; Cuba: Spanish; Iraq: Arabic
""",
    "symbol": """
gold: Au; silver: Ag; iron: Fe; copper: Cu; lead: Pb; tin: Sn; mercury: Hg; oxygen: O; hydrogen: H;
helium: He; carbon: C; nitrogen: N; sodium: Na; potassium: K; calcium: Ca; magnesium: Mg; aluminium: Al;
silicon: Si; sulphur: S; chlorine: Cl; neon: Ne; argon: Ar; zinc: Zn; nickel: Ni; cobalt: Co; tungsten: W;
platinum: Pt; uranium: U; radium: Ra; iodine: I; fluorine: F; lithium: Li; boron: B; phosphorus: P;
titanium: Ti; chromium: Cr; manganese: Mn; arsenic: As; krypton: Kr; barium: Ba
""",
    "young": """
cow: a calf; dog: a puppy; cat: a kitten; horse: a foal; sheep: a lamb; goat: a kid; pig: a piglet;
hen: a chick; duck: a duckling; goose: a gosling; swan: a cygnet; lion: a cub; kangaroo: a joey;
deer: a fawn; frog: a tadpole; butterfly: a caterpillar; eagle: an eaglet; owl: an owlet; eel: an elver;
seal: a pup; hare: a leveret; pigeon: a squab; salmon: a parr; spider: a spiderling; hedgehog: a hoglet;
alpaca: a cria; falcon: an eyas; fish: a fry
""",
    "home": """
a bee: a hive; a bear: a den; a bird: a nest; a rabbit: a burrow; a spider: a web; a beaver: a lodge;
a horse: a stable; a pig: a sty; a hen: a coop; a dog: a kennel; a squirrel: a drey; a snail: a shell;
a badger: a sett; an otter: a holt; an ant: an anthill; a cow: a barn; a bat: a cave; an eagle: an eyrie
""",
    "group": """
lions: a pride; wolves: a pack; cows: a herd; sheep: a flock; fish: a school; bees: a swarm; geese: a gaggle;
crows: a murder; ants: a colony; puppies: a litter; whales: a pod; monkeys: a troop; owls: a parliament;
elephants: a parade; camels: a caravan; kittens: a kindle
""",
    "opposite": """
hot: cold; big: small; fast: slow; high: low; long: short; old: young; early: late; easy: hard; full: empty;
hungry: full; light: dark; loud: quiet; wet: dry; rich: poor; strong: weak; happy: sad; open: closed;
near: far; left: right; up: down; in: out; first: last; day: night; summer: winter; north: south; east: west;
love: hate; buy: sell; push: pull; begin: end; win: lose; give: take; laugh: cry; arrive: leave; true: false;
clean: dirty; thick: thin; wide: narrow; deep: shallow; smooth: rough; sharp: blunt; heavy: light;
brave: afraid; alive: dead; above: below; before: after; inside: outside; always: never; more: less;
sweet: sour; safe: dangerous; polite: rude; remember: forget; ancient: modern; expensive: cheap; front: back
""",
    "colour": """
a ripe banana: yellow; a ripe tomato: red; fresh grass: green; clean snow: white; coal: black; a lemon: yellow;
a ripe strawberry: red; a carrot: orange; a flamingo: pink; a polar bear: white; a crow: black; milk: white;
a ruby: red; an emerald: green; a sapphire: blue; a cucumber: green; an elephant: grey; chocolate: brown;
a pumpkin: orange; a sunflower: yellow; a clear sky: blue; spinach: green; a fire engine: red; salt: white;
a plum: purple; an aubergine: purple; a mouse: grey; a lime: green; lavender: purple; a canary: yellow
""",
    "legs": """
a spider: eight; an ant: six; a dog: four; a hen: two; a crab: ten; a snake: no; a bee: six; a horse: four;
a shark: no; a duck: two; a scorpion: eight; a butterfly: six; a lobster: ten; a cow: four; a tick: eight;
an ostrich: two; a worm: no; a cat: four; a beetle: six; a lizard: four
""",
    "sides": """
a triangle: three; a square: four; a pentagon: five; a hexagon: six; a heptagon: seven; an octagon: eight;
a nonagon: nine; a decagon: ten
""",
    "plural": """
mouse: mice; child: children; foot: feet; tooth: teeth; goose: geese; man: men; woman: women; ox: oxen;
leaf: leaves; knife: knives; wolf: wolves; sheep: sheep; fish: fish; cactus: cacti; person: people; half: halves;
thief: thieves; loaf: loaves; crisis: crises; louse: lice; shelf: shelves; potato: potatoes; baby: babies;
box: boxes; city: cities; bus: buses
""",
    "past": """
go: went; eat: ate; see: saw; buy: bought; think: thought; run: ran; sing: sang; swim: swam; write: wrote;
drink: drank; bring: brought; catch: caught; teach: taught; fly: flew; grow: grew; know: knew; draw: drew;
break: broke; speak: spoke; choose: chose; take: took; give: gave; find: found; hold: held; leave: left;
lose: lost; sleep: slept; build: built; ride: rode; wear: wore; fall: fell; begin: began; make: made;
stand: stood; tell: told; win: won
""",
    "french": """
dog: chien; cat: chat; house: maison; water: eau; bread: pain; milk: lait; cheese: fromage; apple: pomme;
book: livre; sun: soleil; moon: lune; sea: mer; tree: arbre; flower: fleur; red: rouge; green: vert;
white: blanc; black: noir; day: jour; night: nuit; hand: main; head: tête; friend: ami; school: école;
bird: oiseau; fish: poisson; king: roi; door: porte; window: fenêtre; car: voiture; street: rue; egg: œuf;
horse: cheval; snow: neige; fire: feu; town: ville
""",
    "ingredient": """
bread: flour; cheese: milk; wine: grapes; butter: cream; cider: apples; ketchup: tomatoes; hummus: chickpeas;
guacamole: avocados; raisins: grapes; prunes: plums; crisps: potatoes; porridge: oats; tofu: soybeans;
popcorn: maize; an omelette: eggs; chocolate: cocoa beans; marzipan: almonds; coleslaw: cabbage; jam: fruit
""",
    "material": """
a candle: wax; a brick: clay; a tyre: rubber; a window pane: glass; a pair of jeans: denim; a newspaper: paper;
a wooden table: wood; a pullover: wool; a bicycle frame: metal; a cork: bark; a pillowcase: cotton;
a leather shoe: leather; a statue of marble: marble; an igloo: snow
""",
    "measures": """
a thermometer: temperature; a barometer: air pressure; a ruler: length; a clock: time; a kitchen scale: weight;
a speedometer: speed; an odometer: distance; an anemometer: wind speed; a hygrometer: humidity;
a voltmeter: voltage; a protractor: angles; a rain gauge: rainfall; a seismograph: earthquakes;
an altimeter: altitude
""",
}

HOWTOS: dict[str, tuple[str, str, str]] = {
    "boil an egg": ("Lay the egg in hot water", "Boil it for eight minutes", "Cool it under cold water"),
    "make tea": ("Pour boiling water over the tea", "Let it steep for four minutes", "Take the leaves out"),
    "make toast": ("Put a slice of bread in the toaster", "Press the lever down", "Butter it while it is hot"),
    "cook rice": ("Rinse the rice", "Simmer it in two cups of water", "Let it rest with the lid on"),
    "cook pasta": ("Bring salted water to the boil", "Cook the pasta for ten minutes", "Drain it in a sieve"),
    "bake a potato": ("Scrub the potato", "Prick it with a fork", "Bake it for one hour"),
    "make pancakes": ("Whisk flour, milk and eggs", "Heat some butter in a pan", "Fry each side until golden"),
    "make lemonade": ("Squeeze three lemons", "Stir in sugar and cold water", "Serve it with ice"),
    "make a salad": ("Wash the lettuce", "Slice the tomatoes", "Toss it all with oil and vinegar"),
    "fry an egg": ("Heat a little oil in a pan", "Crack the egg into it", "Fry it until the white is set"),
    "make coffee": ("Put ground coffee in a filter", "Pour hot water over it slowly", "Drink it fresh"),
    "make porridge": ("Put oats and milk in a pot", "Stir over low heat", "Sweeten it with honey"),
    "peel an onion": ("Cut off both ends", "Slit the skin", "Pull the dry layers away"),
    "sew on a button": ("Thread a needle", "Stitch through the holes six times", "Tie a knot behind the cloth"),
    "iron a shirt": ("Check the heat on the label", "Iron the collar first", "Hang the shirt up at once"),
    "wash a pullover": ("Fill a bowl with lukewarm water", "Press the wool gently", "Dry it flat on a towel"),
    "remove a coffee stain": ("Dab the stain with a cloth", "Rub in mild soap", "Rinse it with cold water"),
    "tie a shoelace": (
        "Cross the laces and pull",
        "Make a loop with one lace",
        "Wrap the other round and pull through",
    ),
    "polish shoes": ("Brush off the dirt", "Rub in a little polish", "Shine them with a soft cloth"),
    "plant a tree": ("Dig a wide hole", "Set the roots in and fill the soil", "Water it well"),
    "sow carrots": ("Loosen the soil", "Sow the seeds in a row", "Keep the row moist"),
    "water a cactus": ("Wait until the soil is dry", "Give it a small cup of water", "Let the pot drain"),
    "make compost": ("Pile up leaves and peelings", "Turn the heap every week", "Use it after six months"),
    "mow a lawn": ("Clear away stones and sticks", "Walk in straight lines", "Rake up the cuttings"),
    "change a light bulb": ("Switch off the power", "Unscrew the old bulb", "Screw in the new one"),
    "hang a picture": ("Mark the height with a pencil", "Drive a nail into the wall", "Hang the frame and level it"),
    "fix a flat tyre": ("Take the inner tube out", "Glue a patch on the hole", "Put it back and pump it up"),
    "oil a bicycle chain": ("Wipe the chain clean", "Drip oil on every link", "Wipe off what is too much"),
    "unblock a sink": ("Pour in hot water", "Work a plunger up and down", "Flush it with more water"),
    "paint a wall": ("Cover the floor", "Brush along the edges", "Roll paint over the rest"),
    "clean a window": ("Mix water with a little vinegar", "Wipe the glass from top to bottom", "Dry it with paper"),
    "wash the dishes": ("Scrape off the leftovers", "Scrub with hot soapy water", "Rinse and let them dry"),
    "make a bed": ("Shake out the duvet", "Smooth the sheet", "Put the pillows at the head"),
    "fold a paper boat": ("Fold the sheet in half", "Turn the corners down", "Open it from the middle"),
    "wrap a gift": ("Cut the paper to size", "Fold it round the box", "Tape the ends and add a ribbon"),
    "build a snowman": ("Roll three big snowballs", "Stack them by size", "Add a carrot for the nose"),
    "fly a kite": ("Stand with your back to the wind", "Let the kite rise", "Give it string little by little"),
    "light a campfire": ("Lay dry twigs in a ring of stones", "Light the tinder below", "Add bigger wood slowly"),
    "pitch a tent": ("Find level ground", "Raise the poles", "Peg the ropes down tightly"),
    "cool a small burn": ("Hold it under cool water", "Wait for ten minutes", "Cover it with a clean cloth"),
    "clean a small cut": ("Wash your hands", "Rinse the cut with water", "Put a plaster on it"),
}
