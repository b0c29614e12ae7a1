"""The protocols of servers that can score given tokens and go on from them.

Contract: pure: each module builds requests and reads answers of one kind of server. Nothing in an answer is believed
before it was checked; what cannot be true raises `AnswerError`.
"""
