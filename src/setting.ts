// What one row of the table of settings says. The table itself is settings.ts, with the rows of the mesh in mesh-settings.ts.

import type * as v from 'valibot';

/**
 * One setting. `initial` is used when nobody set it; `shown` is that default in words where it is
 * not a constant.
 */
export interface Setting<Value> {
  readonly env: string;
  readonly schema: v.GenericSchema<unknown, Value>;
  readonly initial: Value | (() => Value);
  readonly shown?: string;
  readonly unit?: string;
  readonly allowed: string;
  readonly help: string;
  /** Never repeated in a message. */
  readonly secret?: true;
}

/** Only ties the default's type to the schema's. */
export const setting = <Value>(row: Setting<Value>): Setting<Value> => row;
