// Who takes part in the mesh demo, and at which addresses: three POPs, a backend host near each, and clients of several
// countries. Hosts have addresses of the ranges for documentation (RFC 5737), clients real ones, for the sake of geography.

const REGIONS = ['sa', 'us', 'eu'] as const;
type Region = (typeof REGIONS)[number];

export interface Place {
  /** Also the name of its peer at the others, and of the backend. */
  readonly name: string;
  readonly kind: 'pop' | 'backend';
  readonly region: Region;
  readonly address: string;
}

const NETS: Readonly<Record<Region, string>> = {
  sa: '192.0.2',
  us: '198.51.100',
  eu: '203.0.113',
};

const POPS: readonly Place[] = REGIONS.map((region) => {
  return { name: region, kind: 'pop', region, address: `${NETS[region]}.10` };
});
const BACKENDS: readonly Place[] = REGIONS.map((region) => {
  return { name: `app-${region}`, kind: 'backend', region, address: `${NETS[region]}.20` };
});
export const PLACES: readonly Place[] = [...POPS, ...BACKENDS];

export interface Country {
  readonly name: string;
  /** All addresses of it are in the clients' namespace. */
  readonly net: string;
  /** The POP that its clients reach. */
  readonly pop: Region;
  /** The backend that is to serve them. */
  readonly backend: string;
}

export const BRAZIL: Country = { name: 'Brazil', net: '200.160.2', pop: 'sa', backend: 'app-sa' };
export const COUNTRIES: readonly Country[] = [
  BRAZIL,
  { name: 'Argentina', net: '190.2.0', pop: 'sa', backend: 'app-sa' },
  { name: 'United States', net: '18.9.22', pop: 'us', backend: 'app-us' },
  { name: 'Germany', net: '5.9.0', pop: 'eu', backend: 'app-eu' },
];
