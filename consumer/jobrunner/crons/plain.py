"""What Scheduler is sent: forms that every reading of its grammar takes; pure, any thread.

AWS writes its examples in capitals, with ranges that end after they begin, and asks for zones of the IANA
database. Nobody here knows whether it takes the rest, or gives it back in another form than it was sent in.
"""

from jobrunner.crons.expression import DAY, HOUR, MINUTE, MONTH, WEEKDAY, YEAR, Cron, Schedule

#: IANA keeps these names as links to others.
ZONES = {
    "US/Alaska": "America/Anchorage",
    "US/Aleutian": "America/Adak",
    "US/Arizona": "America/Phoenix",
    "US/Central": "America/Chicago",
    "US/East-Indiana": "America/Indiana/Indianapolis",
    "US/Eastern": "America/New_York",
    "US/Hawaii": "Pacific/Honolulu",
    "US/Indiana-Starke": "America/Indiana/Knox",
    "US/Michigan": "America/Detroit",
    "US/Mountain": "America/Denver",
    "US/Pacific": "America/Los_Angeles",
    "US/Samoa": "Pacific/Pago_Pago",
}


def text_of(schedule: Schedule) -> str:
    """Write an expression in capitals, and its ranges that wrap as lists."""
    if not isinstance(schedule, Cron):
        return schedule.text
    fields = zip((MINUTE, HOUR, DAY, MONTH, WEEKDAY, YEAR), schedule.text[len("cron(") : -1].split(), strict=True)
    return f"cron({' '.join(field.unwrapped(text.upper()) for field, text in fields)})"


def zone_of(schedule: Schedule) -> str:
    """Name its time zone as IANA does today."""
    return ZONES.get(schedule.zone.key, schedule.zone.key)
