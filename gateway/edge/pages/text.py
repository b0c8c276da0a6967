"""What the pages say, one table per language, and which language a browser asked for. No HTML here."""

from collections.abc import Mapping
from typing import Final

EN: Final[Mapping[str, str]] = {
    "lang": "en",
    "tagline": "the square where people meet",
    "home": "hiroba: choose another room",
    "choose_title": "Choose a room",
    "choose_question": "Which room would you like to enter?",
    "choose_hint": "Letters of any script, digits and _ make a room name, and - . : @ between them, up to "
    "{name_chars_max} characters. "
    "A room is there as soon as somebody enters it.",
    "enter": "Enter",
    "guest_question": "What may others call you?",
    "guest_submit": "That's me",
    "guest_hint": "You are a guest: anybody may take this name. It stands before what you say from now on.",
    "guest_known": "You are called {name} now.",
    "guest_impossible": "That can't be a name: letters, digits, marks and single spaces, up to 40 characters.",
    "guest_failed": "That did not work. Try again in a moment.",
    "guest": "{name} (guest)",
    "rooms_label": "Rooms you know",
    "unread": "{count} unread",
    "spoke": "last spoken {when}",
    "pin": "Keep {room} at the top",
    "forget": "Remove {room} from this list",
    "name_empty": "A room needs a name.",
    "name_impossible": "“{name}” can't be a room's name: only letters, digits and _ can be in it, and - . : @ between "
    "them.",
    "name_long": "That name is too long: a room name has at most {name_chars_max} characters.",
    "log_label": "What has been said in this room",
    "outbox_label": "Not yet delivered",
    "message_label": "Your message",
    "send": "Send",
    "connecting": "Connecting…",
    "connected": "Connected",
    "reconnecting": "Reconnecting…",
    "closed": "Closed: {reason}",
    "come_back": "Connect again",
    "close_1000": "the server ended the conversation",
    "close_1008": "too many messages in too short a time",
    "close_4001": "your login has ended",
    "close_4003": "you were put out for a time",
    "closed_kicked": "you were put out of this room for a time",
    "closed_forbidden": "you may not enter this room",
    "closed_too_many_rooms": "too many rooms are open at once",
    "item_waiting": "waiting to be sent",
    "item_retry": "not accepted yet, trying again",
    "item_sent": "on its way",
    "item_unknown": "may or may not have arrived",
    "item_failed": "not sent: {reason}",
    "failed_long": "it is too long",
    "failed_bad": "the server did not understand it",
    "send_again": "Send again",
    "take_back": "Take back",
    "outbox_full": "Too many messages are waiting. Your text stays here.",
    "too_long": "Too long by {bytes} bytes. Your text stays here.",
    "bytes_left": "{bytes} bytes left",
    "read_only": "You may read in this room, but not write.",
    "earlier": "Earlier messages",
    "news": "{count} new ↓",
    "nothing_yet": "Nothing has been said here yet.",
    "own": "you",
    "nameless": "Guest without a name",
    "guest_mark": "guest",
    "say_name": "Say your name",
    "you_are": "You are {name}.",
    "here": "{count} here",
    "people_label": "Who is here",
    "others": "{count} others",
    "came": "{names} came in",
    "went": "{names} left",
    "types": "{names} is typing…",
    "type": "{names} are typing…",
    "menu": "Menu",
    "copy_link": "Copy link to this page",
    "copied": "Copied",
    "theme": "Appearance",
    "theme_system": "As the system",
    "theme_light": "Light",
    "theme_dark": "Dark",
    "show_moves": "Show who comes and goes",
    "notify": "Notify me while I look elsewhere",
    "notify_refused": "This browser does not allow notifications here.",
    "log_in": "Log in",
    "standing_401": "You are not logged in here.",
    "standing_token_expired": "Your login has expired.",
    "standing_revoked": "Your login does not count any more.",
    "standing_ended": "Your login has ended.",
    "standing_403": "You may not come in here.",
    "standing_forbidden": "You may not enter this room.",
    "standing_kicked": "You were put out for a time. Come back later.",
    "standing_503": "There is no place for you at the moment. We keep trying.",
    "deleted": "— message deleted —",
    "gap": "— messages missing here: {lost} —",
    "gap_unknown": "— messages may be missing here —",
    "noscript": "This chat needs JavaScript.",
}

JA: Final[Mapping[str, str]] = {
    "lang": "ja",
    "tagline": "人が出会う、ひろば",
    "home": "hiroba: 別の部屋を選ぶ",
    "choose_title": "部屋を選ぶ",
    "choose_question": "どの部屋に入りますか？",
    "choose_hint": "部屋の名前には文字（漢字・かな・英字など）、数字、_ が使えます。間に - . : @ も使えます。"
    "{name_chars_max}文字まで。だれかが入れば、部屋はそこにあります。",
    "enter": "入る",
    "guest_question": "あなたの呼び名は？",
    "guest_submit": "決める",
    "guest_hint": "ゲストとして参加します。同じ名前はだれでも名乗れます。これからの発言の前に表示されます。",
    "guest_known": "呼び名は「{name}」になりました。",
    "guest_impossible": "名前にできません。文字、数字、記号と、その間の空白一つが使えます。40文字まで。",
    "guest_failed": "うまくいきませんでした。しばらくしてからもう一度お試しください。",
    "guest": "{name}（ゲスト）",
    "rooms_label": "入ったことのある部屋",
    "unread": "未読{count}件",
    "spoke": "最後の発言 {when}",
    "pin": "{room} を先頭に固定",
    "forget": "{room} をこの一覧から外す",
    "name_empty": "部屋の名前を入力してください。",
    "name_impossible": "「{name}」は部屋の名前にできません。使えるのは文字、数字、_ と、"
    "その間の - . : @ だけです（空白は使えません）。",
    "name_long": "名前が長すぎます。部屋の名前は{name_chars_max}文字までです。",
    "log_label": "この部屋での会話",
    "outbox_label": "まだ届いていないメッセージ",
    "message_label": "メッセージ",
    "send": "送信",
    "connecting": "接続しています…",
    "connected": "接続中",
    "reconnecting": "再接続しています…",
    "closed": "切断されました：{reason}",
    "come_back": "もう一度つなぐ",
    "close_1000": "サーバーが会話を終了しました",
    "close_1008": "短い時間に送りすぎました",
    "close_4001": "ログインが終了しました",
    "close_4003": "しばらくの間、退出となりました",
    "closed_kicked": "しばらくの間、この部屋から退出となりました",
    "closed_forbidden": "この部屋には入れません",
    "closed_too_many_rooms": "一度に開いている部屋が多すぎます",
    "item_waiting": "送信を待っています",
    "item_retry": "まだ受け付けられていません。もう一度送ります",
    "item_sent": "送信しています",
    "item_unknown": "届いたかどうか分かりません",
    "item_failed": "送信できません：{reason}",
    "failed_long": "長すぎます",
    "failed_bad": "サーバーが理解できませんでした",
    "send_again": "もう一度送る",
    "take_back": "取り消す",
    "outbox_full": "送信待ちのメッセージが多すぎます。入力した文はそのまま残ります。",
    "too_long": "{bytes} バイト長すぎます。入力した文はそのまま残ります。",
    "bytes_left": "あと {bytes} バイト",
    "read_only": "この部屋では読むことだけができます。",
    "earlier": "以前のメッセージ",
    "news": "新着{count}件 ↓",
    "nothing_yet": "まだ何も話されていません。",
    "own": "あなた",
    "nameless": "名前のないゲスト",
    "guest_mark": "ゲスト",
    "say_name": "名前を名乗る",
    "you_are": "あなたは「{name}」です。",
    "here": "{count}人",
    "people_label": "いま部屋にいる人",
    "others": "ほか{count}人",
    "came": "{names}さんが入りました",
    "went": "{names}さんが出ました",
    "types": "{names}さんが入力しています…",
    "type": "{names}さんが入力しています…",
    "menu": "メニュー",
    "copy_link": "このページのリンクをコピー",
    "copied": "コピーしました",
    "theme": "外観",
    "theme_system": "システムに合わせる",
    "theme_light": "ライト",
    "theme_dark": "ダーク",
    "show_moves": "入退室を表示する",
    "notify": "ほかを見ている間に通知する",
    "notify_refused": "このブラウザーでは通知が許可されていません。",
    "log_in": "ログイン",
    "standing_401": "ログインしていません。",
    "standing_token_expired": "ログインの期限が切れました。",
    "standing_revoked": "このログインは無効になりました。",
    "standing_ended": "ログインが終了しました。",
    "standing_403": "ここには入れません。",
    "standing_forbidden": "この部屋には入れません。",
    "standing_kicked": "しばらくの間、退出となりました。時間をおいてからお越しください。",
    "standing_503": "いまは空きがありません。接続を試し続けます。",
    "deleted": "— メッセージは削除されました —",
    "gap": "— ここで {lost} 件のメッセージが失われました —",
    "gap_unknown": "— ここでメッセージが失われた可能性があります —",
    "noscript": "このチャットには JavaScript が必要です。",
}

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {"en": EN, "ja": JA}


Tables = Mapping[str, Mapping[str, str]]


def text_for(accept_language: str, tables: Tables = TEXTS) -> Mapping[str, str]:
    """The table that an Accept-Language header likes best (RFC 9110, section 12.5.4), or English.

    Only the primary subtag counts (`ja-JP` is `ja`). Among equals the first named wins.
    """
    best, best_weight = tables["en"], 0.0
    for wish in accept_language.split(","):
        tag, _, parameters = wish.partition(";")
        text = tables.get(tag.strip().split("-")[0].lower())
        weight = _weight(parameters)
        if text is not None and weight > best_weight:
            best, best_weight = text, weight
    return best


def _weight(parameters: str) -> float:
    """The `q` of one wish: 1 when it is not there, 0 (not acceptable) when it is not a number from 0 to 1."""
    name, _, value = parameters.partition("=")
    if not name.strip():
        return 1.0
    try:
        weight = float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
