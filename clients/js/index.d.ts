/** Any JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** `<ms>-<n>`: the broker's clock, and the room's dense count. */
export type EntryId = string;

export interface User {
  id: string;
  name?: string;
}

/** Somebody who is in a room. */
export interface Member extends User {
  guest?: true;
  /** What the site wants pages to know of them. */
  info?: Json;
}

export interface Entry {
  id: EntryId;
  /** The session that said it. */
  from: string;
  user: User | string | null;
  message: Json;
  /** Unix milliseconds. */
  at: number;
  /** In a page: it was deleted, and `message` is null. */
  deleted?: boolean;
}

/** Older entries, oldest first. */
export interface Page {
  entries: Entry[];
  /** What is missing: after and before which entries, and how many; null where nobody knows. */
  gaps: { after: EntryId; before: EntryId; lost: number | null }[];
  /** False where the room begins. */
  more: boolean;
}

export interface Message extends Entry {
  /** This client said it, on this connection or as a message that was still open. */
  own: boolean;
}

export type State = "idle" | "connecting" | "connected" | "reconnecting" | "closed";

export interface StateEvent {
  state: State;
  /** Of the close that led to it, where one did. */
  code?: number;
  reason?: string;
}

export interface Joined {
  room: string;
  /** The room's newest entry at joining. */
  last_id: EntryId;
  /** It came back, rather than for the first time. */
  resumed: boolean;
  /** Coming back: nothing since is missing. */
  recovered: boolean;
  read?: EntryId | null;
  rights?: string;
  members?: Member[];
  count?: number;
}

export interface ErrorFrame {
  /** The protocol's, or "token": getToken failed. */
  code: string;
  text: string;
}

export type ItemState = "waiting" | "retry" | "sent" | "unknown" | "failed";
export const WAITING: "waiting";
export const RETRY: "retry";
export const SENT: "sent";
export const UNKNOWN: "unknown";
export const FAILED: "failed";

/** A message of the outbox. */
export interface Item {
  /** Its name in this outbox. */
  readonly ref: number;
  readonly message: Json;
  /** Unix milliseconds by this machine's clock. */
  readonly at: number;
  readonly state: ItemState;
  /** Why it failed: "long", "bad", or a code of the protocol. */
  readonly reason: string | null;
  /** A reload does not lose it. */
  readonly kept: boolean;
  /** Its entry's id once it is in the log; null when it was taken back. Never rejects. */
  readonly settled: Promise<EntryId | null>;
}

export interface RoomEvents {
  state: StateEvent;
  joined: Joined;
  message: Message;
  /** Entries are missing before the next message: how many, null where nobody knows. */
  gap: { lost: number | null };
  /** The entry `id`, or all entries up to `up_to`, are deleted: take them out, where you have them. */
  deleted: { room: string; id?: EntryId; up_to?: EntryId };
  /** All that is not acknowledged, oldest first. */
  outbox: readonly Item[];
  /** The server ended it. */
  left: { room: string; reason?: string };
  /** The server refused the join. */
  error: ErrorFrame;
  /** The user has read up to here, on another device. */
  read: { id: EntryId };
  /** Who types, the user of this connection left out; null: somebody without a name. Until the next, or for so long. */
  typing: { room: string; users: (User | null)[]; for_s: number };
  /** Without who came and went they are too many: then only how many is told. */
  members: { room: string; joined?: Member[]; left?: Member[]; count: number };
  /** A list of who is here, or a page of it; without members pages follow, null where they are too many. */
  presence: { type: string; room: string; members?: Member[] | null; count?: number; more?: boolean; ref?: number };
}

export interface HirobaEvents {
  state: StateEvent;
  /** How far watched rooms grew; up to where the user has read in some. */
  tops: { rooms: Record<string, EntryId>; read?: Record<string, EntryId> };
  /** The user has read up to here, on another device, in a room that is joined or watched. */
  read: { room: string; id: EntryId };
  /** An answer to nothing that was asked for, or a getToken that failed. */
  error: ErrorFrame;
}

declare class Events<Map> {
  /** Returns the function that ends it. */
  on<Name extends keyof Map>(name: Name, act: (event: Map[Name]) => void): () => void;
}

declare class Room extends Events<RoomEvents> {
  private constructor();
  readonly name: string;
  readonly state: State;
  readonly outbox: readonly Item[];
  readonly session: string | null;
  readonly lastId: EntryId | null;
  readonly readId: EntryId | null;
  readonly unread: number | null;
  /** The item in the outbox; null: the outbox is full, or the room was left. */
  send(message: Json): Item | null;
  /** Sends an unknown or failed item once more. */
  again(item: Item): void;
  /** Takes an item out of the outbox that is not under way. */
  takeBack(item: Item): void;
  /** Rejects with an Error whose `code` is the protocol's, or "lost". */
  history(page?: { before?: EntryId; limit?: number }): Promise<Page>;
  /** A request of the protocol about this room: its answer, or the first of several. Rejects as history() does. */
  ask(frame: { type: string; [field: string]: Json }): Promise<{ type: string; ref: number; [field: string]: Json }>;
  read(id?: EntryId | null): void;
  /** Call it at each key: it is told every 3 s at most. */
  typing(): void;
  leave(): void;
}
export type { Room };

export interface Options {
  /** Asked before each connect; null: without a token. */
  getToken?: (() => Promise<string | null>) | null;
  /** Whose messages are kept over a reload: those of one user never go out as another's. */
  user?: string;
  /** False: the outbox lives as long as the page. */
  keep?: boolean;
  /** The nodes' setting publish_timeout_s, if it is not 10. */
  publishTimeout_s?: number;
}

export class Hiroba extends Events<HirobaEvents> {
  /** `url`: where the server's paths begin. Throws TypeError where it is no URL. */
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  readonly rooms: Room[];
  join(name: string, options?: { history?: number; presence?: boolean }): Room;
  watch(names: string[]): void;
  unwatch(names: string[]): void;
  /** Connects again after a final close. */
  open(): void;
  /** The network may be another one now. */
  hurry(): void;
  /** The network is gone. */
  letGo(): void;
  close(): void;
}

/** The entry's number in its room: unread = count(newest) - count(read). */
export function count(id: EntryId): number;
/** Negative, zero, positive: as for sort(). */
export function compare(a: EntryId, b: EntryId): number;
