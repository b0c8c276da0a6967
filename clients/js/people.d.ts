import type { Member, Room, User } from "hiroba";

export interface PeopleEvents {
  /** Who came and who went; `count` of them are here now. At the first join nobody came: all were here. */
  members: { joined: Member[]; left: Member[]; count: number };
  /** Who types now, other than the user of this page; null: somebody without a name. */
  typing: { users: (User | null)[] };
}

/** Who is in a room and who types in it. Make it as soon as the room is; for `members` join with `presence: true`. */
export class People {
  constructor(room: Room);
  /** By id. Of a room with very many people they are not told, only `count`. */
  readonly members: ReadonlyMap<string, Member>;
  /** null: nobody said it yet. */
  readonly count: number | null;
  readonly typing: readonly (User | null)[];
  /** Returns the function that ends it. */
  on<Name extends keyof PeopleEvents>(name: Name, act: (event: PeopleEvents[Name]) => void): () => void;
}
