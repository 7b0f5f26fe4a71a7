"""SIP legs: whom to call and as whom, offers and answers, what the dialog tells."""
